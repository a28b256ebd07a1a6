"""A sample of `python -m tests.fuzz`, and that it would see a fault."""

import random
from pathlib import Path
from typing import NoReturn

import pytest

from graphpruning.common.errors import UserError
from tests.fuzz import OUTCOMES, Target, flipped, main, outcome


def test_no_damaged_file_has_another_outcome_than_accepted_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "faults"
    status = main(["--cases", "12", "--seed", "1", "--seconds", "30", "--log", str(log)])
    assert not log.exists(), log.read_text()
    head, *lines = capsys.readouterr().out.splitlines()
    assert status == 0 and head.split() == ["kind", *OUTCOMES] and len(lines) == 7
    for line in lines:
        _, accepted, refused, *faults = line.split()
        assert int(accepted) + int(refused) >= 5 and int(refused) > 0, line
        assert faults == ["0"] * 3, line


@pytest.mark.parametrize("fault", OUTCOMES[2:])
def test_a_fault_is_seen(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"whole")

    def read() -> NoReturn:
        if fault == "hang":
            while True:
                pass
        if fault == "changed":
            path.write_bytes(b"other")
            raise UserError("no")
        raise KeyError(fault)

    monkeypatch.setattr("tests.fuzz.SECONDS", 0.2)
    assert outcome(Target(path, flipped, read), random.Random(0))[0] == fault
    assert path.read_bytes() == b"whole"
