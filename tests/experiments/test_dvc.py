"""dvc.yaml says what the stages really read: modules, sections of the study, and outputs."""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.common import study

ROOT = Path(__file__).parents[2]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
OWN = ("experiments", "graphpruning", "paper")


CHECK = "python -m experiments.check"


def commands(stage: str) -> list[str]:
    command = STAGES[stage]["cmd"]
    return [command] if isinstance(command, str) else list(command)


def module_of(stage: str) -> str:
    return commands(stage)[-1].split()[2]


@pytest.mark.parametrize("stage", STAGES)
def test_a_command_with_values_of_the_study_comes_after_its_check(stage: str) -> None:
    *before, command = commands(stage)
    assert before == ([CHECK] if "${" in command else [])


def source(module: str) -> Path | None:
    """The file of one of our modules; None for a package or somebody else's module."""
    path = ROOT / (module.replace(".", "/") + ".py")
    return path if module.split(".")[0] in OWN and path.exists() else None


@cache
def imports_of(path: Path) -> set[str]:
    """What may be a module of all that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
    return names


def imported(module: str, found: set[str]) -> set[str]:
    """Files of our own that `module` imports, itself included, however indirectly."""
    path = source(module)
    if path is None or str(path.relative_to(ROOT)) in found:
        return found
    found.add(str(path.relative_to(ROOT)))
    for name in imports_of(path):
        imported(name, found)
    return found


def dependencies(module: str) -> set[str]:
    """What a stage that runs `module` must depend on: its files, those of a library's room as one.

    DVC reads and writes the whole of dvc.lock at every stage, so every line there takes time.
    """
    paths = [Path(name) for name in imported(module, set())]
    return {str(path.parent if len(path.parts) > 2 else path) for path in paths}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_modules_that_it_imports(stage: str) -> None:
    own = {d for d in STAGES[stage]["deps"] if d.split("/")[0] in OWN}
    data = {d for d in own if not d.endswith(".py") and not (ROOT / d / "__init__.py").exists()}
    assert own - data == dependencies(module_of(stage))
    assert all(Path(d).suffix for d in data)  # such as a template


EXPERIMENTS = [s for s in STAGES if module_of(s).startswith("experiments") and s != "fetch"]


@pytest.mark.parametrize("stage", EXPERIMENTS)
def test_a_stage_depends_on_the_sections_that_it_declares(stage: str) -> None:
    declared = import_module(module_of(stage)).STAGE
    sections = list(declared.sections)
    if "model" in declared.items:  # another model's entry is none of the stage's business
        sections[sections.index("networks")] = "networks.${item.model}"
    assert STAGES[stage]["params"] == ["study", *sections]
    items = [key for key in STAGES[stage]["matrix"] if key != "study"]
    assert items == list(declared.items)


def test_editing_a_figure_never_retrains() -> None:
    for stage in STAGES:
        if module_of(stage).startswith("experiments"):
            assert not any(d.startswith("paper/") for d in STAGES[stage]["deps"])


SEARCHES = [stage for stage in STAGES if stage.startswith("search_")]


def test_there_is_a_search_stage_for_every_list_of_the_study() -> None:
    assert [f"search_{source}" for source in study.SEARCHES] == SEARCHES
    for stage in SEARCHES:
        source = stage.removeprefix("search_")
        assert STAGES[stage]["matrix"]["method"] == f"${{searches.{source}}}"
        own = source == "own"
        assert STAGES[stage]["vars"] == ([] if own else [{"source": source}])
        weights = "item.method" if own else "source"
        (dependency,) = [d for d in STAGES[stage]["deps"] if d.startswith("models/")]
        assert dependency.endswith(f"/${{item.seed}}/${{{weights}}}.safetensors")
    other = {*STAGES[SEARCHES[-1]]["deps"]} ^ {*STAGES[SEARCHES[0]]["deps"]}
    assert all(d.startswith("models/") for d in other)  # the one list that is written twice


def test_every_stage_has_its_own_outputs_below_the_study() -> None:
    outputs = [
        output if isinstance(output, str) else next(iter(output))
        for name, stage in STAGES.items()
        if name not in SEARCHES[1:]  # they share one pattern, with other methods
        for output in (*stage["outs"], *stage.get("plots", []), *stage.get("metrics", []))
    ]
    assert len(set(outputs)) == len(outputs)
    below = ("results/", "models/")
    assert all(
        output.startswith(tuple(f"{folder}${{item.study}}/" for folder in below))
        or output.startswith(("data/manifests/${item.study}.", "data/fetched/${item.study}."))
        for output in outputs
    )


def test_what_goes_to_git_is_not_in_dvcs_cache_and_the_reverse() -> None:
    for stage in STAGES.values():
        for output in (*stage["outs"], *stage.get("plots", []), *stage.get("metrics", [])):
            path = output if isinstance(output, str) else next(iter(output))
            cached = isinstance(output, str) or output[path].get("cache", True)
            assert cached == path.startswith(("models/", "data/"))
