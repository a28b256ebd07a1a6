"""Which networks are handled: `python -m benchmarks coverage`, beside Torch-Pruning.

The list has convolutional classification networks of torchvision and timm, one for each family and
set of building blocks (the smallest with these blocks), and segmentation bodies. Each is
traced, narrowed at random and compared in float64, see `check`. A network may be refused, in one
line; any other outcome than "exact" or "refused" is a fault of ours.
"""

import csv
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import RESULTS
from graphpruning.common.errors import UserError
from graphpruning.common.files import write_text
from graphpruning.network.cost import macs, params
from graphpruning.network.graph import ChannelGraph, direct_tensor
from graphpruning.network.leaves import as_stored, filters
from graphpruning.network.subnet import LayerWeights, Statistics, Subnet
from graphpruning.network.surgery import narrow
from graphpruning.network.trace import trace

COLUMNS = ("library", "version", "model", "family", "ours", "torch_pruning", "reason", "seconds")
SIZE, LARGER = (3, 96, 96), (3, 128, 128)
"""What networks see; segmentation bodies, which pool more, see the larger image."""
PAGE = Path("docs/networks.md")
START, END = "<!-- coverage -->\n", "<!-- /coverage -->"
PATIENCE = 20.0
"""Seconds that Torch-Pruning may take for a network; it is then undecided."""
FAMILIES = {
    *("byobnet", "convmixer", "convnext", "cspnet", "cspnext", "csatv2", "densenet", "dla", "dpn"),
    *("nfnet", "vovnet", "resnet", "efficientnet", "fasternet", "mobilenetv3", "mobilenetv5"),
    *("focalnet", "ghostnet", "hardcorenas", "hgnet", "hrnet", "inception_next", "inception_v3"),
    *("inception_resnet_v2", "inception_v4", "lcnetv2", "senet", "xception", "mambaout", "nasnet"),
    *("pnasnet", "rdnet", "regnet", "repghost", "repvit", "res2net", "resnest", "resnetv2"),
    *("rexnet", "selecsls", "sknet", "starnet", "tresnet", "vgg", "xception_aligned"),
    *("metaformer",),
}
"""timm's files of convolutional networks."""


@dataclass(frozen=True)
class Known:
    """A network of a library."""

    library: str
    model: str
    family: str
    build: Callable[[], nn.Module]


@dataclass(frozen=True)
class Outcome:
    """What became of a network, and why."""

    ours: str
    reason: str
    seconds: float


def check(model: nn.Module, size: tuple[int, ...], seed: int = 0) -> Outcome:
    """Trace and narrow `model` (its numbers are changed), and compare with what must be equal.

    - MACs with half of `FlopCounterMode`'s, parameters with the sum, at full and random widths;
    - the narrowed network, in float64, with the full one in which whatever reads a channel that
      went has zeros for it. Where numbers of one channel depend on others (a layer normalisation,
      a mean over channels) nothing is left in its place by zeros; there it is compared with the
      traced operations run with the same weights.
    """
    start = time.perf_counter()

    def outcome(ours: str, why: str = "") -> Outcome:
        return Outcome(ours, why, time.perf_counter() - start)

    try:
        graph = trace(model, size)
    except UserError as refusal:
        return outcome("refused", str(refusal))
    lively(model.double(), seed)
    images = torch.randn(2, *size, dtype=torch.float64, generator=_generator(seed))
    keep = random_units(graph, seed)
    widths = {name: len(units) * graph.prunable[name].unit for name, units in keep.items()}
    with torch.no_grad():
        try:
            narrowed = narrow(model, graph, widths, keep)
        except UserError as refusal:
            return outcome("refused", str(refusal))
        for network, at in ((model, graph.full_widths), (narrowed, widths)):
            with FlopCounterMode(display=False) as counter:
                network(images[:1])
            if counter.get_total_flops() != 2 * macs(graph, at):
                return outcome("wrong", f"{macs(graph, at)} MACs")
            if sum(p.numel() for p in network.parameters()) != params(graph, at):
                return outcome("wrong", f"{params(graph, at)} parameters")
        found = narrowed(images)
        if graph.mixing:
            expected = Subnet(graph).logits(images, *weights_of(narrowed, graph))
        else:
            zero_what_reads(model, graph, keep)
            expected = model(images)
        if not _close(found, expected):
            return outcome("wrong", "its outputs differ")
    return outcome("exact", f"channels mix in {graph.mixing[0]}" if graph.mixing else "")


def lively(model: nn.Module, seed: int) -> None:
    """Give every parameter and statistic a number that counts, in evaluation mode."""
    model.eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if value.ndim == 1 and value.is_floating_point():
                value.uniform_(0.5, 1.5)
            elif value.ndim > 1 and not value.any():
                value.uniform_(-0.5, 0.5)
            if name.endswith(("gamma", "layer_scale", "ls")):
                value.uniform_(0.5, 1.5)


def random_units(graph: ChannelGraph, seed: int) -> dict[str, Tensor]:
    """About half of each group's units."""
    keep = {}
    for name, group in graph.prunable.items():
        units = group.width // group.unit
        chosen = torch.randperm(units, generator=_generator(seed))[: max(1, units // 2)]
        keep[name] = chosen.sort().values
    return keep


def zero_what_reads(model: nn.Module, graph: ChannelGraph, keep: dict[str, Tensor]) -> None:
    """Put zeros where a layer reads a channel whose unit is not in `keep`."""
    mask = graph.these_units(keep)
    for layer in graph.layers:
        if layer.kind != "depthwise":
            module = model.get_submodule(layer.name)
            weight = filters(module).clone()
            weight[:, ~mask[layer.columns]] = 0
            stored = as_stored(weight, layer.transposed, layer.groups)
            module.weight.copy_(stored)  # type: ignore[operator]


def weights_of(model: nn.Module, graph: ChannelGraph) -> tuple[LayerWeights, Statistics]:
    """What a `Subnet` needs to compute what `model` computes."""
    weights: LayerWeights = {}
    statistics: Statistics = {}
    for layer in graph.layers:
        module = model.get_submodule(layer.name)
        weights[layer.name] = (filters(module).detach(), module.bias)  # type: ignore[assignment]
    for name in graph.norms:
        module = model.get_submodule(name)
        weights[name] = (module.weight, module.bias)  # type: ignore[assignment]
        if isinstance(getattr(module, "running_mean", None), Tensor):
            statistics[name] = (module.running_mean, module.running_var)  # type: ignore
    for name in graph.scales | graph.constants:
        weights[name] = (direct_tensor(model, name).detach(), None)
    return weights, statistics


def torch_pruning(model: nn.Module, size: tuple[int, ...]) -> str:
    """Whether Torch-Pruning halves the network so that it still runs: runs, fails or undecided."""
    import torch_pruning as tp

    image = torch.zeros(1, *size)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        tp.pruner.MetaPruner(
            model,
            image,
            importance=tp.importance.MagnitudeImportance(),
            pruning_ratio=0.5,
            ignored_layers=last,
            root_module_types=[nn.Conv2d, nn.Linear],
        ).step()
        with torch.no_grad():
            model.eval()(image)
    except TimeoutError:
        return "undecided"
    except Exception:  # whatever it raises: that is what is asked
        return "fails"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return "runs"


def networks(libraries: tuple[str, ...] = ("torchvision", "timm", "smp")) -> Iterator[Known]:
    """All networks of the list, library by library."""
    if "torchvision" in libraries:
        yield from _of_torchvision()
    if "timm" in libraries:
        yield from _of_timm()
    if "smp" in libraries:
        yield from _of_smp()


def measure(only: str | None = None) -> None:
    """Check every network, print each outcome, and write `coverage.csv` and its page."""
    chosen = [known for known in networks() if not only or only in known.model]
    rows: list[tuple[str, ...]] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _one_thread) as pool:
        for known, outcome in zip(chosen, pool.map(_outcome, chosen), strict=True):
            library = _DISTRIBUTIONS[known.library]
            rows.append((library, version(library), known.model, known.family, *outcome))
            print(known.model, *outcome, flush=True)
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    if not only:
        write_text(RESULTS / "coverage.csv", text.getvalue())
        write_text(PAGE, page(PAGE.read_text(), [dict(zip(COLUMNS, r, strict=True)) for r in rows]))


def _one_thread() -> None:
    torch.set_num_threads(1)


def _outcome(known: Known) -> tuple[str, str, str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        size = LARGER if known.library == "smp" else SIZE
        found = check(known.build(), size)
        theirs = torch_pruning(known.build(), size)
    return found.ours, theirs, found.reason, f"{found.seconds:.1f}"


_DISTRIBUTIONS = {
    "torchvision": "torchvision",
    "timm": "timm",
    "smp": "segmentation-models-pytorch",
}


def page(text: str, rows: list[dict[str, str]]) -> str:
    """Return `text` with what `rows` say between its marks: counts, and what is refused and why."""
    before, _, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise UserError(f"{PAGE} lacks the marks {START.strip()} and {END}")
    frame = pd.DataFrame(rows)
    lines = ["| family | networks | handled | Torch-Pruning runs |", "|---|---|---|---|"]
    for (library, release), of_library in frame.groupby(["library", "version"], sort=False):
        groups = [(f"**{library} {release}**", of_library)]
        groups += [(str(family), part) for family, part in of_library.groupby("family")]
        for name, part in groups:
            exact, runs = (part.ours == "exact").sum(), (part.torch_pruning == "runs").sum()
            lines.append(f"| {name} | {len(part)} | {exact} | {runs} |")
    lines += ["", "Refused:", "", "| network | why |", "|---|---|"]
    for row in frame[frame.ours == "refused"].itertuples():
        why = str(row.reason).partition(", which is not supported")[0].replace("|", "\\|")
        lines.append(f"| {row.library} {row.model} | {why} |")
    return before + START + "\n".join(lines) + "\n" + END + after


def _of_torchvision() -> Iterator[Known]:
    from torchvision import models

    from graphpruning.network.zoo import build, weightless

    def look(name: str) -> nn.Module:
        with weightless():
            return build(name, 1000)

    names = [n for n in models.list_models(models) if not n.startswith(("vit", "swin", "maxvit"))]
    families = {n: models.get_model_builder(n).__module__.rpartition(".")[2] for n in names}
    for family, name in _smallest(families, look):
        yield Known("torchvision", name, family, partial(build, name, 1000))


def _of_timm() -> Iterator[Known]:
    import timm
    from timm.models._registry import _model_to_module

    def look(name: str) -> nn.Module:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: nn.Module = timm.create_model(name)
        return model

    families = {n: _model_to_module[n] for n in timm.list_models()}
    known = {name: family for name, family in families.items() if family in FAMILIES}
    for family, name in _smallest(known, look):
        yield Known("timm", name, family, partial(timm.create_model, name))


def _smallest(families: dict[str, str], look: Callable[[str], nn.Module]) -> list[tuple[str, str]]:
    """The smallest network (family, name) of each set of classes that a family's are made of."""
    smallest: dict[tuple[str, frozenset[str]], tuple[int, str]] = {}
    for name, family in families.items():
        model = look(name)
        size = sum(parameter.numel() for parameter in model.parameters())
        kind = (family, frozenset(type(part).__name__ for part in model.modules()))
        smallest[kind] = min(smallest.get(kind, (size, name)), (size, name))
    return sorted((family, name) for (family, _), (_, name) in smallest.items())


def _of_smp() -> Iterator[Known]:
    import segmentation_models_pytorch as smp

    bodies = (
        *("Unet", "UnetPlusPlus", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "Linknet"),
        *("MAnet", "PAN", "UPerNet"),
    )
    for body in bodies:
        for encoder in ("resnet18", "efficientnet-b0"):
            make = partial(getattr(smp, body), encoder, encoder_weights=None)
            yield Known("smp", f"{body}-{encoder}", body, make)


def _close(found: object, expected: object) -> bool:
    if isinstance(found, Tensor) and isinstance(expected, Tensor):
        if found.shape != expected.shape:
            return False
        scale = max(1.0, float(expected.abs().max()))
        return bool(torch.allclose(found / scale, expected / scale, rtol=1e-9, atol=1e-9))
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(_close(found[k], expected[k]) for k in found)
    if isinstance(found, tuple | list) and isinstance(expected, tuple | list):
        return len(found) == len(expected) and all(map(_close, found, expected))
    return False


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
