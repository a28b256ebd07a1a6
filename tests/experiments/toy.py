"""A pipeline for tests of the runner, in a folder of its own, that runs in no time."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

DIAMOND = {
    "one": [],
    "left": ["one"],
    "right": ["one"],
    "both": ["left", "right"],
    "last": ["both"],
}


def pipeline(folder: Path, needs: Mapping[str, Sequence[str]], **more: Mapping[str, Any]) -> Path:
    """Make `folder` a repository of DVC's, whose stages write OUT/STAGE from what they need.

    `more` changes entries of dvc.yaml, by stage.
    """
    stages = {
        name: {
            "cmd": f"mkdir -p out && echo {name} > out/{name}",
            "deps": [f"out/{one}" for one in needed] + ["source"],
            "outs": [{f"out/{name}": {"cache": False}}],
            **more.get(name, {}),
        }
        for name, needed in needs.items()
    }
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").write_text("[core]\nanalytics = false\n")
    (folder / "source").write_text("1\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder
