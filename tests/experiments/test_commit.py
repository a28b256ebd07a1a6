"""The sidecar names the commit whose code ran, and whether that code was changed."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.common.commit import NOT_KNOWN, Commit, commit_of
from experiments.common.stage import Context, timed
from experiments.common.study import parse

ROOT = Path(__file__).parents[2]


def git(folder: Path, *words: str) -> str:
    someone = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *someone, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("graphpruning/code.py", "experiments/stage.py", "params.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("one\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    commit_of.cache_clear()
    return tmp_path


def test_another_study_leaves_the_code_as_it_was(checkout: Path) -> None:
    (checkout / "params.yaml").write_text("two\n")
    (checkout / "graphpruning/new.txt").write_text("not of the repository\n")
    assert commit_of(checkout) == Commit(git(checkout, "rev-parse", "HEAD"), True)


@pytest.mark.parametrize("name", ["graphpruning/code.py", "experiments/stage.py"])
@pytest.mark.parametrize("staged", [False, True])
def test_changed_code_is_said(checkout: Path, name: str, staged: bool) -> None:
    (checkout / name).write_text("two\n")
    if staged:
        git(checkout, "add", name)
    assert commit_of(checkout) == Commit(git(checkout, "rev-parse", "HEAD"), False)


def test_nothing_is_known_outside_of_a_checkout_or_without_git(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder inside of somebody else's checkout has no commit of its own."""
    (checkout / "inside").mkdir()
    assert commit_of(checkout / "inside") == NOT_KNOWN
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert commit_of(checkout) == NOT_KNOWN


def test_the_sidecar_has_the_commit_from_before_the_work(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    context = Context("a_stage", ("data",), parse(raw), {"model": "resnet8"})
    first = git(checkout, "rev-parse", "HEAD")
    monkeypatch.chdir(checkout)

    def work(_: Context) -> None:
        (checkout / "experiments/stage.py").write_text("two\n")
        git(checkout, "commit", "--quiet", "-am", "second")

    timed(work, context, "python -m a_stage", "base")
    sidecar = json.loads((context.folder("base") / "run.json").read_text())
    assert (sidecar["commit"], sidecar["clean"]) == (first, True)
    assert datetime.fromisoformat(sidecar["started"]) <= datetime.now(UTC)
