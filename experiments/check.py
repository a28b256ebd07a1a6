"""Check the names in params.yaml: `python -m experiments.check`.

DVC puts them into commands that a shell runs, so this comes before every such command. Nothing else
of the study is looked at, and nothing heavy imported. The stage itself checks the rest.
"""

import sys

from experiments.common.study_file import PARAMS, check_names, read_study_file
from graphpruning.common.errors import UserError
from graphpruning.common.machine import refuse


def main() -> int:
    """Say nothing, or refuse."""
    try:
        check_names(read_study_file(PARAMS), str(PARAMS))
    except UserError as refusal:
        return refuse(refusal)
    return 0


if __name__ == "__main__":
    sys.exit(main())
