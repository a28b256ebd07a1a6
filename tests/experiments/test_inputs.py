"""What stages read: roots with environment variables, images by the manifest, tables."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments import prepare
from experiments.common import inputs
from graphpruning.common.errors import UserError
from graphpruning.common.files import sha256
from graphpruning.training.datasets import generated
from graphpruning.training.folder import FolderSet
from graphpruning.training.images import ImageSet
from graphpruning.training.listing import read_manifest, write_manifest
from graphpruning.training.preprocessing import Preprocessing
from tests.miniature import ARCHIVES, build


def context(root: str | Path, name: str = "imagenet", **data: Any) -> Any:
    """A context with what reading images needs of a study."""
    how = Preprocessing((0.5,) * 3, (0.2,) * 3, 0, True, size=32, resize=36, smallest_area=0.3)
    values = {"preprocessing": how, "workers": 0, **data}
    networks = {"resnet8": SimpleNamespace(options={"width": 8})}
    study = SimpleNamespace(
        study="mini", data=SimpleNamespace(name=name, root=str(root), **values), networks=networks
    )
    listed = Path("data/manifests/mini.tsv.gz")
    return SimpleNamespace(study=study, items={"model": "resnet8"}, manifest=listed)


@pytest.mark.parametrize("root", ["$SOME_IMAGES/2012", "${SOME_IMAGES}/2012"])
def test_a_root_may_hold_environment_variables(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_IMAGES", "/somewhere")
    assert inputs.data_root(context(root)) == Path("/somewhere/2012")
    for unset in (
        lambda: monkeypatch.setenv("SOME_IMAGES", ""),
        lambda: monkeypatch.delenv("SOME_IMAGES"),
    ):
        unset()
        with pytest.raises(UserError, match="needs the environment variable SOME_IMAGES"):
            inputs.data_root(context(root))


def test_stages_read_the_images_that_prepare_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "mini", classes=2, train=3, val=2)
    mini = context("mini")
    listings = prepare.list_data(mini)
    about = write_manifest(mini.manifest, listings)
    assert about["files"] == 13
    for name in ARCHIVES:  # the manifest is enough: no tree is walked, no class is looked up
        (tmp_path / "mini" / name).unlink()
    (tmp_path / "mini/meta.bin").unlink()

    train, test = inputs.training_images(mini), inputs.test_images(mini)
    assert isinstance(train, FolderSet) and isinstance(test, ImageSet)
    assert train.classes == test.classes == listings["train"].classes
    assert train.labels.tolist() == [0] * 6 + [1] * 3 and test.labels.tolist() == [0, 0, 1, 1]
    full = inputs.full_network(mini, train)
    options = {"name": "resnet8", "num_classes": 2, "in_channels": 3, "width": 8}
    assert full.make.description == options
    assert full.graph.layers and full.graph.input_size == (3, 32, 32)


def test_a_fresh_network_is_of_its_seed(tmp_path: Path) -> None:
    full = inputs.full_network(context(tmp_path), generated(tmp_path, train=False))
    torch.manual_seed(9)
    one = full.fresh(0).state_dict()
    same, other = full.fresh(0).state_dict(), full.fresh(1).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_without_a_manifest_the_stage_that_makes_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"mini\.tsv\.gz is missing: the stage prepare makes it"):
        inputs.training_images(context("mini"))


def test_damaged_images_of_a_folder_are_refused_before_training(tmp_path: Path) -> None:
    build(tmp_path / "mini", classes=2, train=3, val=2)
    prepare.list_data(context(tmp_path / "mini"))
    (broken,) = (tmp_path / "mini/val").glob("*/ILSVRC2012_val_00000003.JPEG")
    broken.write_bytes(broken.read_bytes()[:-30])
    with pytest.raises(UserError, match=rf"{broken.name} cannot be decoded .*truncated"):
        prepare.list_data(context(tmp_path / "mini", "folder"))


def test_data_in_few_files_has_a_manifest_too(tmp_path: Path) -> None:
    for name, size in (("train-images-idx3-ubyte", 5), ("t10k-labels-idx1-ubyte", 3)):
        path = tmp_path / "FashionMNIST/raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    manifests = []
    for name in ("fashion_mnist", "generated"):
        manifests.append(
            write_manifest(tmp_path / name, prepare.list_data(context(tmp_path, name)))
        )
        listing = read_manifest(tmp_path / name, tmp_path, "all")
        assert len(listing.files) == manifests[-1]["files"]
    assert [(m["files"], m["bytes"]) for m in manifests] == [(2, 8), (0, 0)]
    assert sha256(tmp_path / "generated") != sha256(tmp_path / "fashion_mnist")


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    inputs.write_csv(tmp_path / "a.csv", [], columns=["epoch", "lr"])
    assert (tmp_path / "a.csv").read_text() == "epoch,lr\n"
    inputs.write_csv(tmp_path / "b.csv", [{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": None}])
    assert (tmp_path / "b.csv").read_text() == "epoch,lr\n1,0.1\n2,\n"


def test_an_empty_split_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/search.txt").write_text("\n")
    indices = inputs.split(SimpleNamespace(results=tmp_path), "search")  # type: ignore[arg-type]
    assert indices.dtype == torch.int64 and len(indices) == 0


def write_split(folder: Path, content: bytes, name: str = "search") -> Any:
    (folder / "splits").mkdir(exist_ok=True)
    (folder / f"splits/{name}.txt").write_bytes(content)
    return SimpleNamespace(results=folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"3\nx\n", "line 2: 'x' is no index"),
        (b"3\n\n-1\n", "line 3: '-1' is no index"),
        (b"3\n1.5\n", "line 2: '1.5' is no index"),
        (b"3\n4 5\n", "line 2: '4 5' is no index"),
        (b"3\n1_0\n", "line 2: '1_0' is no index"),
        ("3\n\u00b2\n".encode(), "line 2: '\u00b2' is no index"),
        (b"9" * 5000, "line 1: '9999"),
        (b"5\n3\n5\n", "line 3: the index 5 stands in line 1 too"),
        (b"5\n05\n", "line 2: the index 05 stands in line 1 too"),
        (b"\0\0\0", r"line 1: '\x00"),
        (b"\xff\xfe3\0", "is not text in UTF-8"),
    ],
)
def test_a_split_that_is_damaged(tmp_path: Path, content: bytes, says: str) -> None:
    damaged = write_split(tmp_path, content)
    with pytest.raises(UserError) as refused:
        inputs.split(damaged, "search")
    assert f"{tmp_path / 'splits/search.txt'}" in str(refused.value) and says in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("make", "says"), [(Path.mkdir, "is a folder"), (os.mkfifo, "is a device or a pipe")]
)
def test_a_split_that_is_no_file(tmp_path: Path, make: Any, says: str) -> None:
    place = write_split(tmp_path, b"", "train")
    make(tmp_path / "splits/search.txt")
    for read in (lambda: inputs.split(place, "search"), lambda: inputs.splits_hash(place)):
        with pytest.raises(UserError, match=f"search.txt {says}"):
            read()


def test_a_split_is_read_in_its_order(tmp_path: Path) -> None:
    place = write_split(tmp_path, b"7\r\n\n 3\n0\n")
    assert inputs.split(place, "search").tolist() == [7, 3, 0]
    with pytest.raises(UserError, match=r"train.txt is missing: the stage prepare makes it"):
        inputs.split(place, "train")


def test_a_split_of_another_data_set_is_refused(tmp_path: Path) -> None:
    images = generated(tmp_path, train=False)
    place = write_split(tmp_path, b"199\n200\n")
    with pytest.raises(UserError, match="no image 200: the data set has 200"):
        images.select(inputs.split(place, "search"))


def test_the_splits_hash_is_that_of_their_bytes(tmp_path: Path) -> None:
    contents = (b"1\n2\n", b"3\n", b"1\n")
    for name, content in zip(inputs.SPLITS, contents, strict=True):
        place = write_split(tmp_path, content, name)
    assert inputs.splits_hash(place) == hashlib.sha256(b"".join(contents)).hexdigest()
