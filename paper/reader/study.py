"""study.json: what the study is called, and which files its results have."""

import os
from pathlib import Path

from graphpruning.common.errors import UserError
from paper.reader.contents import Row, StudyFile
from paper.reader.reading import Files

FILE = "study.json"


def read_study(path: Path) -> StudyFile:
    """Read study.json; `UserError` if it names what it does not define, or has nothing to show."""
    folder = os.path.basename(os.path.realpath(path))
    prepare = Files(path, folder, "prepare")
    study = prepare.json(FILE, StudyFile)
    for where, names, known in (
        ("methods", study.methods, study.rows),
        ("analysed", study.analysed, study.conditionings),
        ("rows: source", [row.source for row in study.rows.values()], _sources(study)),
    ):
        if unknown := [name for name in names if name not in known]:
            raise prepare.damaged(FILE, f"{where}: {unknown[0]!r} is none of {', '.join(known)}")
    if "base" in study.methods:
        raise prepare.damaged(FILE, "methods: 'base' is the network that is not pruned")
    methods = rows(study).values()
    labels = [row.label for row in methods]
    if len(set(labels)) < len(labels):
        raise prepare.damaged(FILE, "rows: two methods have the same label")
    if methods and all(row.kind != "ours" for row in methods):
        raise UserError(
            f"{path / FILE}: no method is of kind 'ours', so there is nothing to compare; "
            "add one to the study's methods"
        )
    needed = {"models": study.models, "seeds": study.seeds}
    if methods:
        needed |= {"budgets": study.budgets, "analysed": study.analysed}
        needed["analysed_budgets"] = analysed_budgets(study)
    for key, there in needed.items():
        if not there:
            raise prepare.damaged(FILE, f"{key}: none")
    return study


def _sources(study: StudyFile) -> list[str]:
    return ["base", *study.conditionings]


def rows(study: StudyFile) -> dict[str, Row]:
    """The study's methods in its order."""
    return {name: Row(**vars(study.rows[name]), name=name) for name in study.methods}


def analysed_budgets(study: StudyFile) -> list[str]:
    """The budgets within which PruningNets were analysed."""
    return study.budgets if study.analysed_budgets is None else study.analysed_budgets


def data(study: StudyFile) -> str:
    """What the images are called: a folder's have no name but in the title, after "on"."""
    named = study.title.rpartition(" on ")[2]
    return named if study.data.name == "folder" else study.data.name
