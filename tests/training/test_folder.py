"""Image files: torchvision's presets and distributions, the same batches however they are read."""

import os
import random
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.datasets import ImageFolder
from torchvision.transforms import RandomResizedCrop, functional
from torchvision.transforms._presets import ImageClassification

from graphpruning.common.errors import UserError
from graphpruning.training import folder
from graphpruning.training.datasets import load
from graphpruning.training.decoding import decode, end_at_row
from graphpruning.training.folder import FolderSet, crop_box
from graphpruning.training.images import Batch, ImageSet, prepared
from graphpruning.training.listing import WNIDS, list_images, read_manifest, write_manifest
from graphpruning.training.preprocessing import Preprocessing

TRAINING = Preprocessing(
    (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), pad=0, flip=True, size=32, resize=36, smallest_area=0.08
)
SMALL = Preprocessing((0.5,) * 3, (0.2,) * 3, pad=2, flip=True, size=32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Decoded images go to a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / folder.CACHE


def picture(width: int, height: int, seed: int) -> Image.Image:
    """A smooth random picture, as photographs are, in three colours."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of JPEG files of many sizes; among them grey, CMYK, and a PNG by another name."""
    root = tmp_path_factory.mktemp("folder")
    for part, count in (("train", 12), ("test", 3)):
        for label, name in enumerate(("zebra", "Ape")):
            place = root / part / name
            place.mkdir(parents=True)
            for number in range(count):
                image = picture(40 + 7 * number, 90 - 4 * number, 100 * label + number)
                image.save(place / f"{number}.jpg", quality=92)
    picture(50, 60, 7).convert("L").save(root / "train/Ape/grey.JPEG")
    picture(50, 60, 8).convert("CMYK").save(root / "train/Ape/ink.jpg")
    picture(50, 60, 9).save(root / "train/Ape/png.jpg", format="PNG")
    (root / "train/Ape/note.txt").write_text("no image")
    return root


def training(tree: Path, workers: int = 0) -> FolderSet:
    images = load("folder", tree, True, TRAINING, workers)
    assert isinstance(images, FolderSet)
    return images


def test_a_folder_is_listed_as_torchvision_does(tree: Path) -> None:
    for part in ("train", "test"):
        ours, theirs = list_images("folder", tree, part == "train"), ImageFolder(tree / part)
        files = [str(tree / file) for file in ours.files]
        assert list(zip(files, ours.labels, strict=True)) == theirs.samples
        assert list(ours.classes) == theirs.classes == ["Ape", "zebra"]
        assert list(ours.sizes) == [Path(file).stat().st_size for file in files]


def test_hidden_folders_are_no_classes_and_val_comes_before_test(
    tree: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(tree, tmp_path / "copy"))
    (root / "train/.cache").mkdir()
    assert list_images("folder", root, True).classes == ("Ape", "zebra")
    assert list_images("folder", root, False).files[0].startswith("test/")
    shutil.copytree(root / "test", root / "val")
    (root / "val/.cache").mkdir()
    assert list_images("folder", root, False).files[0].startswith("val/")


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_torchvisions_preset_bit_for_bit(tree: Path, workers: int) -> None:
    images = load("folder", tree, False, TRAINING, workers)
    assert isinstance(images, ImageSet) and images.shape == (3, 32, 32)
    preset = ImageClassification(crop_size=32, resize_size=36, mean=TRAINING.mean, std=TRAINING.std)
    theirs = torch.stack([preset(image) for image, _ in ImageFolder(tree / "test")])
    inputs = torch.cat([batch for batch, _ in prepared(images, TRAINING, 4)])
    assert torch.equal(
        (theirs * images_std() + images_mean()).mul(255).round().byte(), images.images
    )
    assert torch.allclose(inputs, theirs, atol=1e-5)


def images_mean() -> torch.Tensor:
    return torch.tensor(TRAINING.mean)[:, None, None]


def images_std() -> torch.Tensor:
    return torch.tensor(TRAINING.std)[:, None, None]


GREY = Preprocessing((0.5,), (0.2,), pad=0, flip=True, size=32, resize=36, smallest_area=0.08)


def test_a_network_of_one_channel_gets_grey_images(tree: Path) -> None:
    test = load("folder", tree, False, GREY)
    assert isinstance(test, ImageSet) and test.shape == (1, 32, 32)
    for image, file in zip(test.images, list_images("folder", tree, False).files, strict=True):
        with Image.open(tree / file) as opened:
            resized = functional.resize(opened.convert("L"), 36)
        expected = functional.pil_to_tensor(functional.center_crop(resized, 32))
        assert torch.equal(image, expected)
    images = load("folder", tree, True, GREY)
    (batch, _) = next(images.batches(GREY, 8, torch.Generator(), True))
    assert batch.shape == (8, 1, 32, 32)
    crop, colours = (
        folder._RandomCrop(32, channels, 0.08, True, np.arange(9)) for channels in (1, 3)
    )
    content = (tree / "train/Ape/grey.JPEG").read_bytes()  # as three equal channels elsewhere
    for seed in range(9):
        assert (crop(content, seed) - colours(content, seed) == 0).all()
    with pytest.raises(UserError, match="2 channels, but images of folders have 1 or 3"):
        load("folder", tree, True, Preprocessing((0.5,) * 2, (0.2,) * 2, 0, True, size=32))


def test_grey_and_colours_are_kept_apart(tree: Path, cache: Path) -> None:
    for how in (TRAINING, GREY, TRAINING):
        assert training_as(tree, how).decoded(how).shape[0] == len(how.mean)
    assert len(list(cache.glob("*.bin"))) == 2


def training_as(tree: Path, how: Preprocessing) -> FolderSet:
    images = load("folder", tree, True, how)
    assert isinstance(images, FolderSet)
    return images


def test_training_images_are_evaluated_on_the_same_central_crops(tree: Path) -> None:
    chosen = torch.tensor([3, 26, 0])
    whole = training(tree).decoded(TRAINING)
    part = training(tree).select(chosen)
    assert part.labels.tolist() == whole.labels[chosen].tolist()
    assert torch.equal(part.decoded(TRAINING).images, whole.images[chosen])
    (batch, _) = next(part.batches(TRAINING, 3))
    assert torch.equal(batch, next(whole.select(chosen).batches(TRAINING, 3))[0])


def test_images_are_decoded_once(tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = training(tree).decoded(TRAINING)
    (file,) = cache.iterdir()
    monkeypatch.setattr(folder, "decode", None)  # decoding again would fail
    assert torch.equal(training(tree).decoded(TRAINING).images, first.images)
    monkeypatch.undo()
    monkeypatch.chdir(cache.parents[1])
    other = Preprocessing(TRAINING.mean, TRAINING.std, 0, True, size=32, resize=40)
    load("folder", tree, False, other)
    assert len(list(cache.iterdir())) == 2 and file.exists()
    copy = shutil.copytree(tree, cache / "copy")  # other images may have the same names and sizes
    load("folder", copy, False, other)
    assert len(list(cache.glob("*.bin"))) == 3


def test_an_image_that_was_overwritten_is_decoded_again(tree: Path, tmp_path: Path) -> None:
    """By one with as many bytes, which a format without compression always has."""
    copy = shutil.copytree(tree, tmp_path / "mine")
    for value in (10, 200):
        overwritten = next(copy.glob("train/*")) / "flat.bmp"
        Image.new("RGB", (40, 40), (value, value, value)).save(overwritten)
        os.utime(overwritten, ns=(value, value))  # a clock may be too coarse to tell
        pixels = training(copy).decoded(TRAINING).images
        assert (pixels.flatten(1) == value).all(dim=1).sum() == 1


def test_copies_on_several_machines_are_decoded_into_one_file(
    tree: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process writes it and the others wait for it; copies may differ in time."""
    copy = shutil.copytree(tree, tmp_path / "mine")
    torchrun = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    for machines in (2, 1):
        for name, value in {**torchrun, "WORLD_SIZE": str(machines)}.items():
            monkeypatch.setenv(name, value)
        shutil.rmtree(cache, ignore_errors=True)
        for when in (10**9, 2 * 10**9):
            for file in copy.rglob("*.*"):
                os.utime(file, ns=(when, when))
            training(copy).decoded(TRAINING)
        assert len(list(cache.glob("*.bin"))) == (1 if machines == 2 else 2)


def test_random_crops_are_distributed_as_torchvisions() -> None:
    """Area, aspect ratio and place of 4,000 crops each, where some fall back to the centre too."""
    torch.manual_seed(0)
    draw = random.Random(0)
    for width, height in ((500, 375), (90, 300)):
        image = Image.new("L", (width, height))
        theirs = np.array(
            [RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(4000)]
        )
        ours = np.array([crop_box(width, height, 0.08, draw) for _ in range(4000)])
        left, top, right, bottom = ours.T
        wide, tall = right - left, bottom - top
        their_top, their_left, their_tall, their_wide = theirs.T
        for a, b in (
            (wide * tall, their_wide * their_tall),
            (wide / tall, their_wide / their_tall),
            (left, their_left),
            (top, their_top),
        ):
            assert ks_2samp(a, b).pvalue > 0.005
        assert (left >= 0).all() and (right <= width).all() and (wide > 0).all()
        assert (top >= 0).all() and (bottom <= height).all() and (tall > 0).all()


@pytest.mark.parametrize(("width", "height"), [(20, 400), (400, 20)])
def test_where_no_crop_fits_the_centre_is_taken(width: int, height: int) -> None:
    top, left, tall, wide = RandomResizedCrop.get_params(
        Image.new("L", (width, height)), [1, 1], [3 / 4, 4 / 3]
    )
    assert crop_box(width, height, 1, random.Random(0)) == (left, top, left + wide, top + tall)


def test_crops_are_pixels_of_the_image_within_two_levels(tree: Path) -> None:
    """Against Pillow's full decode, crop and resize of the same box; half of them are flipped."""
    images, flips, worst = training(tree), 0, 0.0
    seeds = np.arange(200)
    crop = folder._RandomCrop(32, 3, 0.08, True, seeds)
    names = [name.decode() for name in images.files]
    for seed in seeds:
        path = tree / names[seed % len(names)]
        found = crop(path.read_bytes(), int(seed)).int()
        with Image.open(path) as image:
            plain = image.convert("RGB")
        draw = random.Random(int(seed))
        part = plain.crop(crop_box(*plain.size, 0.08, draw))
        flipped = draw.random() < 0.5
        flips += flipped
        plain = functional.resize(part, [32, 32])
        expected = torch.from_numpy(np.array(functional.hflip(plain) if flipped else plain)).int()
        assert (found - expected).abs().max() <= 2
        worst = max(worst, (found - expected).abs().float().mean().item())
    assert worst < 0.3
    assert 75 < flips < 125


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_decoding_that_ends_early_gives_the_same_pixels(
    progressive: bool, subsampling: str, mode: str
) -> None:
    file = BytesIO()
    plain = picture(150, 211, 3).convert(mode)
    plain.save(
        file, "JPEG", progressive=progressive, subsampling=subsampling, restart_marker_rows=3
    )
    content = file.getvalue()
    whole = Image.open(BytesIO(content)).convert("RGB")
    for bottom in (1, 8, 15, 16, 17, 100, 195, 196, 211):
        with Image.open(BytesIO(end_at_row(content, bottom))) as shorter:
            assert shorter.height == min(bottom + 16, 211)
        box = (3, bottom // 2, 140, bottom)
        assert decode(content, box).tobytes() == whole.crop(box).tobytes()
    assert decode(content).tobytes() == whole.tobytes()
    for cut in (len(content) // 2, 300, 30):
        with pytest.raises(ValueError, match=r"(?i)truncated|cannot identify"):
            decode(content[:cut], (0, 0, 20, 211))


def epoch(images: FolderSet | ImageSet, how: Preprocessing, **more: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    return list(images.batches(how, 8, generator, True, drop_last=True, **more))


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(
        torch.equal(a, c) and torch.equal(b, d)
        for (a, b), (c, d) in zip(first, second, strict=True)
    )


def test_workers_do_not_change_the_batches(tree: Path) -> None:
    before = torch.random.get_rng_state()
    alone, together = epoch(training(tree), TRAINING), epoch(training(tree, 2), TRAINING)
    assert [len(labels) for _, labels in alone] == [8, 8, 8]
    assert same(alone, together)
    assert torch.equal(torch.random.get_rng_state(), before)
    generator = torch.Generator().manual_seed(4)
    other = next(training(tree).batches(TRAINING, 8, generator, True))
    assert not torch.equal(other[0], alone[0][0])
    for batch, labels in alone:
        assert batch.shape == (8, 3, 32, 32) and batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == torch.int64


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_share_the_same_batches(tree: Path, workers: int) -> None:
    whole = epoch(training(tree), TRAINING, limit=19)
    ranks = [epoch(training(tree, workers), TRAINING, limit=19, rank=r, world=3) for r in range(3)]
    for (inputs, labels), *parts in zip(whole, *ranks, strict=True):
        for rank, (part_inputs, part_labels) in enumerate(parts):
            assert torch.equal(part_labels, labels[rank::3])
            assert torch.equal(part_inputs, inputs[rank::3])


def test_without_a_smallest_area_a_folder_is_padded_and_cropped(tmp_path: Path) -> None:
    """As CIFAR-10 from JPEG files: the same batches as from the same pixels in memory."""
    pixels = torch.randint(0, 256, (10, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(torch.uint8)
    for number, image in enumerate(pixels):
        path = tmp_path / "small/train" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        functional.to_pil_image(image).save(path)
    order = [*range(0, 10, 2), *range(1, 10, 2)]
    memory = ImageSet(pixels[order], torch.tensor([0] * 5 + [1] * 5), ("0", "1"))
    images = load("folder", tmp_path / "small", True, SMALL)
    assert isinstance(images, ImageSet)
    assert same(epoch(images, SMALL), epoch(memory, SMALL))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("augment", [False, True])
def test_a_broken_image_is_named(tmp_path: Path, workers: int, augment: bool) -> None:
    (tmp_path / "bad/train/a").mkdir(parents=True)
    path = tmp_path / "bad/train/a/1.jpg"
    picture(60, 60, 0).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError) as refused:
        next(training(tmp_path / "bad", workers).batches(TRAINING, 1, torch.Generator(), augment))
    assert str(path) in str(refused.value) and "truncated" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_images_that_are_too_small_and_folders_that_are_missing_are_named(tmp_path: Path) -> None:
    (tmp_path / "small/train/a").mkdir(parents=True)
    with pytest.raises(UserError, match="small/train/a has no image"):
        load("folder", tmp_path / "small", True, SMALL)
    picture(31, 60, 0).save(tmp_path / "small/train/a/1.jpg")
    with pytest.raises(UserError, match=r"1.jpg cannot be used \(31 x 60 pixels .* than 32\)"):
        load("folder", tmp_path / "small", True, SMALL)
    with pytest.raises(UserError, match="small/val is missing"):
        load("folder", tmp_path / "small", False, SMALL)
    with pytest.raises(UserError, match="preprocessing with a size"):
        load("folder", tmp_path / "small", True)


def test_a_subset_of_imagenet_has_the_labels_of_all_classes(tree: Path, tmp_path: Path) -> None:
    wnids = WNIDS.read_text().split()
    for number in (5, 700):
        (tmp_path / "some" / wnids[number]).mkdir(parents=True)
        picture(60, 60, number).save(tmp_path / "some" / wnids[number] / "1.JPEG")
    for train in (True, False):
        listing = list_images("imagenet_subset", tmp_path / "some", train)
        assert listing.labels == (5, 700) and len(listing.classes) == 1000
    with pytest.raises(UserError, match="Ape is not a class"):
        list_images("imagenet_subset", tree / "train", True)


def test_a_manifest_gives_the_listing_back(tree: Path, tmp_path: Path) -> None:
    parts = {part: list_images("folder", tree, part == "train") for part in ("train", "test")}
    path = tmp_path / "manifests/some.tsv.gz"
    about = write_manifest(path, parts)
    content = path.read_bytes()
    assert write_manifest(path, parts) == about and path.read_bytes() == content
    for part, listing in parts.items():
        assert read_manifest(path, tree, part) == listing
    assert about["files"] == 33
    assert about["bytes"] == sum(sum(listing.sizes) for listing in parts.values())
    path.write_bytes(content[:-9])
    with pytest.raises(UserError, match=r"some\.tsv\.gz is damaged"):
        read_manifest(path, tree, "train")
    with pytest.raises(UserError, match="the stage prepare makes it"):
        read_manifest(tmp_path / "other.tsv.gz", tree, "train")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_augmented_folder_has_the_random_crops_of_an_epoch(tree: Path, workers: int) -> None:
    images = training(tree, workers)
    drawn = images.augmented(TRAINING, torch.Generator().manual_seed(3))
    seeded = torch.Generator().manual_seed(3)
    order = torch.arange(len(images))
    expected = torch.cat(list(images._crops(TRAINING, order, [slice(0, len(images))], seeded)))
    assert torch.equal(drawn.images.permute(0, 2, 3, 1), expected)
    assert torch.equal(drawn.labels, images.labels)
    again = images.augmented(TRAINING, torch.Generator().manual_seed(4))
    assert not torch.equal(drawn.images, again.images)
