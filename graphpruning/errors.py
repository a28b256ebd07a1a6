"""The two ways in which a request can be refused; both are for people, in one line."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    Entry points print it on standard error without a traceback and exit with code 2.
    """


class UnsupportedNetwork(UserError):
    """A network that cannot be traced to a correct graph.

    The message names the module, the operation and what to do. A wrong graph is never returned.
    """
