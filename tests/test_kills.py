"""`python -m tests.kills` would see a fault: here it ends runners that take no time."""

import random
from pathlib import Path

import pytest

from tests import kills

WRITES = """
mkdir -p results/smoke models/smoke
for file in results/smoke/one models/smoke/two; do
    test -e $file || { sleep 0.4; echo made > $file.part; mv $file.part $file; }
done
"""
RUNNERS = {
    "whole": WRITES,
    "different": f"test -e begun && touch results/smoke/more; touch begun; {WRITES} rm begun",
    "failing": f"test -e begun && exit 1; touch begun; {WRITES} rm begun",
    "stuck": f"test -e begun && sleep 60; touch begun; {WRITES} rm begun",
}
"""Each after the first kill; all but the first are faulty."""


@pytest.mark.parametrize("name", RUNNERS)
def test_a_fault_after_a_kill_is_seen_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.sh").write_text(RUNNERS[name])
    monkeypatch.setattr(kills, "REPRO", ("sh", "run.sh"))
    monkeypatch.setattr(kills, "LONGEST", 0.4)
    monkeypatch.setattr(kills, "STUCK", 4.0)
    faults = kills.run_killed(tmp_path, 2, random.Random(0))
    said = capsys.readouterr().out
    assert faults == (0 if name == "whole" else 1), said
    expected = {
        "whole": "2 files, 0 differ",
        "different": "3 files, 1 differ ['results/smoke/more']",
        "failing": "a start failed with 1 after kill 1",
        "stuck": "a start was stuck after kill 2",
    }
    assert expected[name] in said
