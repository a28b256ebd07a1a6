"""The two ways in which a request can be refused; both are for people, in one line."""

import textwrap


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    Entry points print it on standard error without a traceback and exit with code 2.
    """


class UnsupportedNetwork(UserError):
    """A network that cannot be traced to a correct graph.

    The message names the module, the operation and what to do. A wrong graph is never returned.
    """


def one_line(text: str) -> str:
    """Return a text with line feeds, escape codes and the like spelled out, as names may have."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def reason(error: BaseException) -> str:
    """Return what an error says, short and in one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(textwrap.shorten(said or type(error).__name__, 200))


def brief(value: object) -> str:
    """Return a value as Python writes it, short and in one line."""
    return one_line(textwrap.shorten(repr(value), 60, placeholder=" ..."))
