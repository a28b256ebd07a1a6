"""What the README says can be done, can be done."""

import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from benchmarks.harness import markdown
from graphpruning import UserError
from graphpruning.__main__ import main
from graphpruning.network.zoo import build
from paper import overview, readme
from tests.coloured_images import coloured_images

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [README, *(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))]


def blocks(language: str) -> list[str]:
    """Of README first, then of docs/."""
    return [
        block
        for page in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    ]


def commands(program: str) -> list[list[str]]:
    """The arguments of every command that starts with `program`."""
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    return [
        shlex.split(line)[len(program.split()) :]
        for line in text.splitlines()
        if line.startswith(program)
    ]


@pytest.fixture(autouse=True, scope="module")
def studies_are_read_once() -> Iterator[None]:
    """Nothing here changes them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readme, "read", cache(readme.read))
        yield


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the examples of `prune` need, in the current folder; their network is a small one."""
    coloured_images(tmp_path / "photos")
    torch.save(build("resnet8", 3).state_dict(), tmp_path / "resnet18.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("graphpruning.export.find_spec", lambda name: None)  # seconds, tested apart


QUICK = {"batch_size": 16, "epochs": 1, "pruningnet_epochs": 1, "evaluations": 4}


def test_the_ten_lines_of_python_prune(photos: None, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ", ".join(f"{key}={value}" for key, value in QUICK.items())
    code = blocks("python")[0].replace('"resnet18",', '"resnet8",')
    code = code.replace('out="pruned",', f'out="pruned", input_size=(3, 32, 32), {quick},')
    names: dict[str, object] = {}
    exec(code, names)
    last = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split()[0] for line in last] == ["before", "after"]
    assert isinstance(names["model"], torch.nn.Module)


def test_the_command_that_prunes(photos: None) -> None:
    """README's; those of docs/prune.md are run by test_prune_page.py."""
    arguments = next(each for each in commands("python -m graphpruning") if each[0] == "prune")
    arguments[arguments.index("resnet18")] = "resnet8"
    quick = [f"--{key.replace('_', '-')}={value}" for key, value in QUICK.items()]
    assert main([*arguments, "--input-size", "3", "32", "32", *quick]) == 0
    assert Path("pruned/report.md").exists()


def test_the_commands_that_inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper").symlink_to(ROOT / "paper")
    inspections = [each for each in commands("python -m graphpruning") if each[0] == "inspect"]
    assert len(inspections) == 5
    for arguments in inspections:
        assert main(arguments) == 0
    assert Path("resnet50.pdf").exists()


def test_a_published_network_is_built_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [each for each in blocks("python") if "published_networks" in each]
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(block, names)
    model = names["model"]
    assert isinstance(model, torch.nn.Module)
    assert model.get_submodule("layer1.0.conv3").out_channels == 94  # of 256


def test_the_stages_that_are_started_by_hand_exist() -> None:
    """With the arguments that each stage has; test_torchrun.py runs two of them."""
    text = "\n".join(blocks("bash"))
    modules = re.findall(r"-m (experiments\.\w+)(?: with (.*))?", text)
    assert len(modules) >= 4
    for module, given in modules:
        assert (ROOT / (module.replace(".", "/") + ".py")).exists()
        names = [word.split("=")[0] for word in given.split() if "=" in word]
        items = importlib.import_module(module).STAGE.items
        assert tuple(names) == items, module


def test_the_example_narrows_a_torchvision_network(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(blocks("python")[1], names)
    macs, params = map(int, capsys.readouterr().out.split())
    small = names["small"]
    assert params == sum(p.numel() for p in small.parameters())  # type: ignore[attr-defined]
    assert 0.98 * names["budget"] <= macs <= names["budget"]  # type: ignore[operator]


def test_the_named_architecture_is_committed_and_asks_for_its_weights_only() -> None:
    block = blocks("python")[2]
    (path,) = re.findall(r'"(results/.*?)"', block)
    assert (ROOT / path).exists()
    code = block.replace(path, str(ROOT / path))
    try:
        exec(code, {})
    except UserError as refusal:  # a clone without DVC's cache has no weights yet
        assert "its weights" in str(refusal) and "make repro" in str(refusal)


def test_what_is_quoted_of_the_results_is_what_they_say() -> None:
    for page, text in readme.render().items():
        assert page.read_text() == text, f"{page}: make tables"


def test_a_page_without_its_marks_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- one -->\nold\n<!-- /one -->\nrest\n")
    assert readme.filled(page, {"one": "new"}) == "<!-- one -->\nnew\n<!-- /one -->\nrest\n"
    with pytest.raises(UserError, match=r"page\.md lacks the marks <!-- two -->"):
        readme.filled(page, {"two": "new"})


def test_the_picture_of_the_method_is_drawn_by_its_script(tmp_path: Path) -> None:
    picture = tmp_path / "method.png"
    overview.write(picture)
    assert picture.read_bytes() == (ROOT / "docs/method.png").read_bytes()


def test_the_first_picture_is_drawn_from_the_committed_results(tmp_path: Path) -> None:
    picture = tmp_path / readme.PICTURE.name
    readme.picture(picture)
    assert picture.read_bytes() == readme.PICTURE.read_bytes(), "make tables"
    assert re.findall(r"!\[.*?\]\((.*?)\)", README)[0] == "docs/effects.png"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 170


def test_every_file_and_make_target_that_is_named_exists() -> None:
    """Files that docs/ names: see test_docs.py."""
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README.replace("\n", " ")):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)", "".join(PAGES))):
        rule = rf"^{target}:|^[a-z -]*\b{target}\b[a-z -]*:"
        assert re.search(rule, makefile, re.MULTILINE), target


@pytest.mark.parametrize("folder", ["benchmarks/results", "benchmarks/results/avx2"])
def test_the_table_of_benchmarks_is_what_was_measured(folder: str) -> None:
    assert markdown(ROOT / folder) in (ROOT / "docs/benchmarks.md").read_text()
