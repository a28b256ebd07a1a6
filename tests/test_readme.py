"""What the README says can be done, can be done."""

import re
from pathlib import Path

import pytest

from graphpruning import UserError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_prunes_a_torchvision_network(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(blocks("python")[0], names)
    macs, params = map(int, capsys.readouterr().out.split())
    small = names["small"]
    assert params == sum(p.numel() for p in small.parameters())  # type: ignore[attr-defined]
    assert 0.98 * names["budget"] <= macs <= names["budget"]  # type: ignore[operator]


def test_the_named_architecture_is_committed_and_asks_for_its_weights_only() -> None:
    block = blocks("python")[1]
    (path,) = re.findall(r'"(results/.*?)"', block)
    assert (ROOT / path).exists()
    code = block.replace(path, str(ROOT / path))
    try:
        exec(code, {})
    except UserError as refusal:  # a clone without DVC's cache has no weights yet
        assert "the weights of" in str(refusal)


def test_the_results_are_those_of_the_committed_desk_study() -> None:
    shown = README.split("<!-- results -->")[1].split("<!-- /results -->")[0].strip()
    assert shown == (ROOT / "results/desk/tables/table3_main.md").read_text().strip()


def test_the_verdicts_are_those_of_the_committed_report() -> None:
    report = (ROOT / "results/desk/report.html").read_text()
    verdicts = re.findall(r'class="verdict">. ([a-z ]+)</span>', report)
    shown = ", ".join(f"C{number} {verdict}" for number, verdict in enumerate(verdicts, start=1))
    assert len(verdicts) == 5 and f"The claims in these runs: {shown}." in README


def test_every_file_and_make_target_that_is_named_exists() -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z]+)", README)):
        rule = rf"^{target}:|^[a-z ]*\b{target}\b[a-z ]*:"
        assert re.search(rule, makefile, re.MULTILINE), target
