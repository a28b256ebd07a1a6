import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from graphpruning.common.errors import UserError
from graphpruning.common.files import sha256
from graphpruning.training.datasets import fashion_mnist, generated, load
from graphpruning.training.images import Batch, ImageSet, Prepared, prepared
from graphpruning.training.listing import FASHION_MNIST_FILES
from graphpruning.training.preprocessing import Preprocessing, crop_and_flip, normalise
from graphpruning.training.splits import split


def images(count: int, channels: int = 3, height: int = 6, width: int = 8) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, channels, height, width), generator=generator)
    return ImageSet(pixels.to(torch.uint8), torch.arange(count), ())


def slow_crop_and_flip(image: Tensor, top: int, left: int, flip: bool, pad: int) -> Tensor:
    """One image [C, H, W], pixel by pixel."""
    _, height, width = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            source_row = row + top - pad
            source_column = (width - 1 - column if flip else column) + left - pad
            if 0 <= source_row < height and 0 <= source_column < width:
                result[:, row, column] = image[:, source_row, source_column]
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pad", [0, 3])
def test_augmentation_equals_the_slow_one(channels: int, pad: int) -> None:
    source = images(12, channels)
    generator = torch.Generator().manual_seed(1)
    top, left = torch.randint(0, 2 * pad + 1, (2, 12), generator=generator)
    flip = torch.rand(12, generator=generator) < 0.5
    assert 0 < flip.sum() < 12

    fast = crop_and_flip(source.images, top, left, flip, pad).permute(0, 3, 1, 2)
    for index in range(12):
        slow = slow_crop_and_flip(
            source.images[index], int(top[index]), int(left[index]), bool(flip[index]), pad
        )
        assert torch.equal(fast[index], slow)


def test_batches_are_shuffled_augmented_and_normalised() -> None:
    source = images(40)
    preprocessing = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), pad=2, flip=True)
    mean, std = (
        torch.tensor(value)[:, None, None] for value in (preprocessing.mean, preprocessing.std)
    )
    generator = torch.Generator().manual_seed(0)
    seen, crops = [], set()
    for batch, labels in source.batches(preprocessing, 16, generator, augment=True):
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)
        for inputs, label in zip(batch, labels.tolist(), strict=True):
            matches = [
                (top, left, flip)
                for top in range(5)
                for left in range(5)
                for flip in (False, True)
                if torch.allclose(
                    inputs,
                    (slow_crop_and_flip(source.images[label], top, left, flip, 2) / 255 - mean)
                    / std,
                    atol=1e-5,
                )
            ]
            assert len(matches) == 1
            crops.update(matches)
            seen.append(label)
    assert sorted(seen) == list(range(40)) != seen
    assert {top for top, _, _ in crops} == {left for _, left, _ in crops} == set(range(5))
    assert {flip for _, _, flip in crops} == {False, True}


def test_one_channel_is_recognisably_channels_last() -> None:
    """With one channel both layouts count as contiguous; convolutions look at the strides."""
    preprocessing = Preprocessing((0.5,), (0.2,), pad=1, flip=True)
    generator = torch.Generator().manual_seed(0)
    for augment in (False, True):
        batch, _ = next(images(4, 1).batches(preprocessing, 4, generator, augment))
        convolution = torch.nn.Conv2d(1, 2, 3).to(memory_format=torch.channels_last)
        assert convolution(batch).is_contiguous(memory_format=torch.channels_last)


def test_ranks_share_the_same_batches() -> None:
    preprocessing = Preprocessing((0.5,) * 3, (0.2,) * 3, pad=2, flip=True)

    def batches(rank: int, world: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(3)
        return list(images(22).batches(preprocessing, 8, generator, True, rank, world, limit=19))

    whole, ranks = batches(0, 1), [batches(rank, 2) for rank in range(2)]
    assert [len(labels) for _, labels in whole] == [8, 8, 3]
    for (inputs, labels), *parts in zip(whole, *ranks, strict=True):
        for rank, (part_inputs, part_labels) in enumerate(parts):
            assert torch.equal(part_labels, labels[rank::2])
            assert torch.equal(part_inputs, inputs[rank::2])


def test_the_generator_decides_the_batches_and_drop_last_keeps_them_full() -> None:
    preprocessing = Preprocessing((0.5,) * 3, (0.2,) * 3, pad=2, flip=True)

    def batches(seed: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(seed)
        return list(images(22).batches(preprocessing, 8, generator, True, drop_last=True))

    first, again, other = batches(0), batches(0), batches(1)
    assert [len(labels) for _, labels in first] == [8, 8]
    assert all(torch.equal(a, b) for a, b in zip(first[0], again[0], strict=True))
    assert not torch.equal(first[0][1], other[0][1])


def test_prepared_batches_keep_order_and_pixels() -> None:
    source = images(5)
    preprocessing = Preprocessing((0.5,) * 3, (0.2,) * 3, pad=2, flip=True)
    ready = prepared(source, preprocessing, 2)
    assert torch.cat([labels for _, labels in ready]).tolist() == [0, 1, 2, 3, 4]
    expected = (source.images / 255 - 0.5) / 0.2
    assert torch.allclose(torch.cat([inputs for inputs, _ in ready]), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "expected"), [(5, [2, 3]), (9, [3, 3, 3]), (13, [3, 3, 3, 4]), (8, [4, 4]), (1, [1])]
)
def test_the_last_prepared_batch_is_as_large_as_the_others(
    count: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics of one image would be none, and those of a few would weigh as much as many."""
    preprocessing = Preprocessing((0.5,) * 3, (0.2,) * 3, pad=2, flip=True)
    for most in (2**30, 0):
        monkeypatch.setattr("graphpruning.training.images.IN_MEMORY", most)
        ready = prepared(images(count), preprocessing, 4)
        assert [len(labels) for _, labels in ready] == expected
        assert torch.cat([labels for _, labels in ready]).tolist() == list(range(count))


def test_what_is_too_large_to_keep_normalised_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    source = images(7)
    preprocessing = Preprocessing((0.5,) * 3, (0.2,) * 3, pad=2, flip=True)
    kept = prepared(source, preprocessing, 3)
    assert isinstance(kept, list)
    monkeypatch.setattr("graphpruning.training.images.IN_MEMORY", 4 * source.images.nbytes - 1)
    lazy = prepared(source, preprocessing, 3)
    assert isinstance(lazy, Prepared) and len(lazy) == len(kept) == 3
    for _ in range(2):
        for (inputs, labels), (expected, numbers) in zip(lazy, kept, strict=True):
            assert torch.equal(inputs, expected) and torch.equal(labels, numbers)
    assert [len(labels) for _, labels in lazy[1:]] == [2, 3]
    assert torch.equal(lazy[-1][0], kept[-1][0])


def test_what_is_too_large_goes_to_a_device_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's device "meta" has shapes only, and shows where things are."""
    source, meta = images(7), torch.device("meta")
    assert source.to(meta).images.device == source.to(meta).labels.device == meta
    monkeypatch.setattr("graphpruning.training.images.IN_MEMORY", source.images.nbytes - 1)
    moved = source.to(meta)
    assert moved.images.device == moved.labels.device == torch.device("cpu")
    preprocessing = Preprocessing((0.5,) * 3, (0.2,) * 3, pad=2, flip=True)
    for augment in (False, True):
        batches = list(moved.batches(preprocessing, 4, torch.Generator(), augment))
        assert [tuple(inputs.shape) for inputs, _ in batches] == [(4, 3, 6, 8), (3, 3, 6, 8)]
        assert {tensor.device for batch in batches for tensor in batch} == {meta}
    assert {tensor.device for tensor in prepared(moved, preprocessing, 4)[1]} == {meta}


def test_preprocessing_survives_json_and_refuses_other_channels() -> None:
    preprocessing = Preprocessing((0.5,), (0.2,), pad=2, flip=True)
    assert preprocessing.to_dict().keys() == {"mean", "std", "pad", "flip"}
    folder = Preprocessing((0.5,), (0.2,), 0, flip=True, size=24, resize=32, smallest_area=0.2)
    for value in (preprocessing, folder):
        assert Preprocessing.from_dict(json.loads(json.dumps(value.to_dict()))) == value
    with pytest.raises(UserError, match=r"has 1 channels .* images have 3"):
        prepared(images(5), preprocessing, 2)
    with pytest.raises(UserError, match="one value a channel"):
        Preprocessing((0.5,), (0.2, 0.2), pad=2, flip=True)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"resize": 256}, "need a size"),
        ({"smallest_area": 0.1}, "need a size"),
        ({"size": 0}, "at least 1"),
        ({"size": 224, "resize": 223}, "at least the size"),
        ({"size": 224, "smallest_area": 0.0}, "above 0"),
        ({"size": 224, "smallest_area": 0.1, "pad": 1}, "pad is 1, must be 0"),
        ({"pad": -1}, "pad is -1, must be at least 0"),
        ({"std": (0.0,)}, r"std is \[0.0\], must be above 0"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Preprocessing(**{"mean": (0.5,), "std": (0.2,), "pad": 0, "flip": True, **values})


def test_normalising_in_parts_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessing = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), pad=2, flip=True)
    pixels = images(7).images.permute(0, 2, 3, 1)
    whole = normalise(pixels, preprocessing)
    for values in (1, 3 * 6 * 8 * 2):  # one image at a time, then two
        monkeypatch.setattr("graphpruning.training.preprocessing.IN_CACHE", values)
        assert torch.equal(normalise(pixels, preprocessing), whole)
    assert normalise(pixels[:0], preprocessing).shape == (0, 3, 6, 8)


def test_splits_are_disjoint_fair_and_deterministic() -> None:
    counts = [100, 100, 50]
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    splits = split(labels, search_images=50, calibration_images=26, seed=4)
    train, search, calibration = (
        set(part.tolist()) for part in (splits.train, splits.search, splits.calibration)
    )
    assert len(search) == 50 and len(calibration) == 26
    assert train | search == set(range(250)) and not train & search
    assert calibration < train
    for part in (splits.train, splits.search):
        assert torch.equal(part, part.sort().values)
    assert sorted(torch.bincount(labels[splits.search]).tolist()) == [16, 17, 17]
    fair = 26 * torch.bincount(labels[splits.train]) / 200
    assert (torch.bincount(labels[splits.calibration]) - fair).abs().max() <= 1

    again = split(labels, 50, 26, seed=4)
    assert torch.equal(again.search, splits.search)
    assert torch.equal(again.calibration, splits.calibration)
    assert not torch.equal(split(labels, 50, 26, seed=5).search, splits.search)


def test_a_small_class_keeps_half_of_its_images_for_training() -> None:
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([1, 4, 50, 45]))
    splits = split(labels, search_images=12, calibration_images=4, seed=0)
    assert torch.bincount(labels[splits.search], minlength=4).tolist() == [0, 2, 5, 5]


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_of_one_size_are_dealt_out_in_one_order(seed: int) -> None:
    """As the committed splits were made: image by image, from one shuffled list of rounds."""
    labels = torch.arange(60) % 3
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(seed)).tolist()
    seen = [0, 0, 0]
    rounds = []
    for image in shuffled:
        rounds.append((seen[image % 3], image))
        seen[image % 3] += 1
    order = [image for _, image in sorted(rounds, key=lambda pair: pair[0])]
    splits = split(labels, 9, 7, seed)
    assert splits.search.tolist() == sorted(order[:9])
    assert splits.calibration.tolist() == order[9:16]


def test_every_part_of_the_calibration_images_has_all_classes_in_their_shares() -> None:
    """Of a folder, whose images stand class by class: its first ones alone, or one batch of them,
    give batch normalisations their statistics, and would be of one class."""
    counts = torch.tensor([400, 200, 100])
    splits = split(torch.repeat_interleave(torch.arange(3), counts), 70, 350, seed=3)
    labels = torch.repeat_interleave(torch.arange(3), counts)[splits.calibration]
    shares = torch.bincount(labels) / len(labels)
    for start in range(0, 350, 50):
        of_beginning = torch.bincount(labels[: start + 50], minlength=3)
        assert (of_beginning - (start + 50) * shares).abs().max() <= 1.5
        of_batch = torch.bincount(labels[start : start + 50], minlength=3)
        assert (of_batch - 50 * shares).abs().max() <= 3


@pytest.mark.parametrize(("search", "calibration"), [(200, 51), (-1, 10), (10, 0), (0, 251)])
def test_impossible_splits_are_refused(search: int, calibration: int) -> None:
    with pytest.raises(UserError, match="from 250 training images"):
        split(torch.zeros(250, dtype=torch.int64), search, calibration, seed=0)


def test_without_searches_every_image_may_train_and_calibrate() -> None:
    splits = split(torch.arange(10) // 5, search_images=0, calibration_images=10, seed=0)
    assert len(splits.search) == 0
    assert splits.train.tolist() == sorted(splits.calibration.tolist()) == list(range(10))


def test_generated_images_are_the_same_each_time(train_set: ImageSet, test_set: ImageSet) -> None:
    assert train_set.images.shape == (600, 1, 16, 16) and test_set.images.shape == (200, 1, 16, 16)
    assert torch.bincount(train_set.labels).tolist() == [60] * 10
    again = generated(Path("nowhere"), train=True)
    assert torch.equal(again.images, train_set.images)
    assert torch.equal(again.labels, train_set.labels)
    assert test_set.select(torch.tensor([3, 1])).labels.tolist() == [3, 1]


def test_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'fashion_mnist'"):
        load("fashon-mnist", "data", train=True)


def write_idx(raw: Path, name: str, shape: tuple[int, ...]) -> None:
    """Write an IDX file of zeros: magic number 8 (uint8) and rank, sizes, then bytes."""
    raw.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in shape)
    body = bytes(torch.Size(shape).numel())
    (raw / name).write_bytes(bytes([0, 0, 8, len(shape)]) + sizes + body)


def test_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte is missing: .*fetch_data"):
        load("fashion_mnist", tmp_path, train=True)

    for part, count in (("train", 3), ("t10k", 2)):
        write_idx(raw, f"{part}-images-idx3-ubyte", (count, 28, 28))
        write_idx(raw, f"{part}-labels-idx1-ubyte", (count,))
    hashes = {name: sha256(raw / name) for name in FASHION_MNIST_FILES}
    with pytest.raises(UserError) as refused:
        load("fashion_mnist", tmp_path, train=True)
    name = "train-images-idx3-ubyte"
    for part in (str(raw / name), hashes[name], FASHION_MNIST_FILES[name], "fetch_data"):
        assert part in str(refused.value)

    monkeypatch.setattr("graphpruning.training.datasets.FASHION_MNIST_FILES", hashes)
    loaded = fashion_mnist(tmp_path, train=False)
    assert loaded.images.shape == (2, 1, 28, 28) and loaded.images.dtype == torch.uint8
    assert loaded.labels.dtype == torch.int64 and len(loaded.classes) == 10


def test_missing_and_corrupted_cifar10_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    with pytest.raises(UserError, match=r"data_batch_1 is missing .*download=True"):
        load("cifar10", tmp_path, train=True)
    file.parent.mkdir()
    file.write_bytes(b"other")
    with pytest.raises(UserError, match="data_batch_1 is corrupted"):
        load("cifar10", tmp_path, train=True)


@pytest.mark.parametrize("flip", [False, True])
def test_an_augmented_set_has_one_random_crop_of_every_image(flip: bool) -> None:
    pixels = torch.randint(0, 256, (12, 2, 4, 4), generator=torch.Generator().manual_seed(0))
    still = ImageSet(pixels.to(torch.uint8), torch.arange(12) % 3, ("a", "b", "c"))
    how = Preprocessing(mean=(0.5, 0.5), std=(0.5, 0.5), pad=1, flip=flip)
    drawn = [still.augmented(how, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0].images, drawn[1].images)
    assert not torch.equal(drawn[0].images, drawn[2].images)
    assert torch.equal(drawn[0].labels, still.labels) and drawn[0].classes == still.classes
    padded = torch.nn.functional.pad(still.images, (1, 1, 1, 1))
    for image, around in zip(drawn[0].images, padded, strict=True):
        crops = [around[:, y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
        mirrored = [crop.flip(2) for crop in crops] if flip else []
        assert any(torch.equal(image, crop) for crop in (*crops, *mirrored))
