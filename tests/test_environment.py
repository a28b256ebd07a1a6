"""One set of pins: pyproject.toml, requirements.lock, environment.yml and what is installed."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGES = ("graphpruning", "experiments", "paper")


def pins(requirements: list[str]) -> dict[str, str]:
    """Map each canonical name to its version; every requirement must be an exact pin."""
    found = {}
    for text in requirements:
        requirement = Requirement(text)
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert requirement.url is None
        found[canonicalize_name(requirement.name)] = specifier.version
    return found


def locked() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def declared() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["dev"]]


def conda() -> list[str]:
    """The requirements that conda gives to pip, options such as `-c` left out."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (by_pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    return [entry for entry in by_pip if not entry.startswith("-")]


def test_the_three_files_pin_the_same_versions() -> None:
    direct, lock = pins(declared()), pins(locked())
    assert pins(conda()) == direct
    assert {name: lock.get(name) for name in direct} == direct


def test_the_python_of_conda_is_the_required_one() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "python=3.11" in listed
    assert project["requires-python"] == "==3.11.*"


def test_setuptools_still_has_what_sacred_imports() -> None:
    assert Version(pins(locked())["setuptools"]) < Version("82")


@pytest.mark.parametrize("line", locked())
def test_what_is_installed_is_what_is_locked(line: str) -> None:
    requirement = Requirement(line)
    if requirement.marker is None or requirement.marker.evaluate():
        assert version(requirement.name) in requirement.specifier


def test_every_package_that_the_code_imports_is_declared() -> None:
    distributions = packages_distributions()
    imported = set()
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - set(PACKAGES)
    needed = {canonicalize_name(distributions[name][0]) for name in foreign}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for_users = [
        *project["dependencies"],
        *(pin for name, pins_of in extras.items() if name != "dev" for pin in pins_of),
    ]
    assert needed <= pins(for_users).keys()
