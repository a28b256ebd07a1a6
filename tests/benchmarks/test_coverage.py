"""Networks of timm and of others, each narrowed and compared with what it must equal."""

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.coverage import COLUMNS, check, page
from graphpruning.network.trace import trace

ROOT = Path(__file__).parents[2]

TIMM = (
    *(
        "resnet10t",
        "ecaresnext26t_32x4d",
        "resnetblur18",
        "resnetaa34d",
        "seresnet18",
        "skresnet18",
    ),
    *("resnest14d", "gernet_s", "repvgg_a0", "gcresnext26ts", "test_byobnet", "darknet17"),
    *("cs3darknet_focus_s", "cspresnet50w", "densenet121", "dla46_c", "vovnet39a", "hgnetv2_b0"),
    *("efficientnet_blur_b0", "test_efficientnet_gn", "tf_efficientnet_lite0", "mixnet_s"),
    *("mobilenetv2_035", "mobilenetv3_small_050", "mobilenetv4_conv_small_035", "lcnet_035"),
    *("ghostnet_050", "fasternet_t0", "starnet_s050", "repghostnet_050", "regnety_002"),
    *(
        "convnext_atto",
        "convnextv2_atto",
        "test_convnext3",
        "inception_next_atto",
        "poolformer_s12",
    ),
    *("mambaout_femto", "focalnet_tiny_srf", "nf_resnet26", "test_nfnet", "xception41p"),
)
"""One of most families, small ones."""


@pytest.mark.parametrize("name", TIMM)
def test_a_network_of_timm_is_narrowed_rightly(name: str) -> None:
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = check(timm.create_model(name, num_classes=10), (3, 64, 64))
    assert found.ours == "exact", found.reason


class Csp(nn.Module):
    """A cross-stage partial block, as in YOLO: two ways, one with shortcuts, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.one, self.two = nn.Conv2d(channels, half, 1), nn.Conv2d(channels, half, 1)
        self.inner = nn.ModuleList(nn.Conv2d(half, half, 3, padding=1) for _ in range(2))
        self.out = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        for conv in self.inner:
            y = y + nn.functional.silu(conv(y))
        return nn.functional.silu(self.out(torch.cat((y, self.two(x)), dim=1)))


class Yolo(nn.Module):
    """A detector's body: CSP blocks, pyramid pooling, a path down and up, and three raw outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.down = nn.ModuleList(nn.Conv2d(n, 2 * n, 3, 2, 1) for n in (16, 32))
        self.csp = nn.ModuleList(Csp(n) for n in (16, 32, 64))
        self.pool = nn.Conv2d(4 * 64, 64, 1)
        self.lateral = nn.Conv2d(64 + 32, 32, 1)
        self.heads = nn.ModuleList(nn.Conv2d(n, 3 * 9, 1) for n in (32, 64))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.csp[0](self.stem(x))
        middle = self.csp[1](self.down[0](x))
        deep = self.csp[2](self.down[1](middle))
        pools = [deep]
        for _ in range(3):
            pools.append(nn.functional.max_pool2d(pools[-1], 5, 1, 2))
        deep = self.pool(torch.cat(pools, 1))
        up = nn.functional.interpolate(deep, scale_factor=2, mode="nearest")
        middle = self.lateral(torch.cat((up, middle), 1))
        outputs = []
        for head, feature in zip(self.heads, (middle, deep), strict=True):
            y = head(feature)
            count, _, height, width = y.shape
            outputs.append(y.view(count, 3, 9, height, width).permute(0, 1, 3, 4, 2).contiguous())
        return outputs


class Ssd(nn.Module):
    """Heads at two depths, whose anchors are concatenated, and a scaled norm of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.scale = nn.Parameter(torch.full((16,), 20.0))
        self.boxes = nn.ModuleList(nn.Conv2d(n, 4 * 4, 3, padding=1) for n in (16, 24))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        one = self.one(x)
        first = nn.functional.normalize(one) * self.scale.view(1, -1, 1, 1)
        found = []
        for head, feature in zip(self.boxes, (first, self.two(one)), strict=True):
            y = head(feature).permute(0, 2, 3, 1)
            found.append(y.reshape(y.size(0), -1, 4))
        return {"boxes": torch.cat(found, dim=1)}


@pytest.mark.parametrize("body", [Yolo, Ssd])
def test_a_detectors_body_is_narrowed_rightly(body: type[nn.Module]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = body()
    assert len(trace(model, (3, 64, 64)).prunable) >= 2
    found = check(model, (3, 64, 64))
    assert found.ours == "exact", found.reason


@pytest.mark.parametrize("body", ["Unet", "FPN", "DeepLabV3Plus", "UPerNet"])
def test_a_segmentation_body_is_narrowed_rightly(body: str) -> None:
    import segmentation_models_pytorch as smp

    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = check(getattr(smp, body)("resnet18", encoder_weights=None), (3, 64, 64))
    assert found.ours == "exact", found.reason


def test_a_wrong_graph_would_be_seen() -> None:
    """A network in which a channel moves, and the graph does not know."""

    class Moves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
            self.cheat = False

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.two(x.flip(1) if self.cheat else x)

    class Caught(Moves):
        def double(self) -> "Caught":  # after the trace, before the comparison
            self.cheat = True
            return super().double()

    assert check(Moves(), (3, 8, 8)).ours == "exact"
    assert check(Caught(), (3, 8, 8)).ours in ("wrong", "refused")


def test_the_committed_table_holds_no_fault() -> None:
    with open(ROOT / "benchmarks/results/coverage.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert {row["ours"] for row in rows} == {"exact", "refused"}
    assert all(row["reason"] for row in rows if row["ours"] == "refused")
    timm = [row for row in rows if row["library"] == "timm"]
    handled = sum(row["ours"] == "exact" for row in timm)
    assert len(timm) > 180 and handled / len(timm) > 0.9


def test_the_page_of_networks_says_what_the_table_says() -> None:
    with open(ROOT / "benchmarks/results/coverage.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    text = (ROOT / "docs/networks.md").read_text()
    assert page(text, rows) == text
