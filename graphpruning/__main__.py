"""The command line: `python -m graphpruning inspect | prune | export`; `--help` says more.

Commands import what they need themselves, so that help comes at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from graphpruning.common.errors import UserError
from graphpruning.common.machine import end_on_signals, launched, refuse
from graphpruning.common.memory import keep_freed_memory

MODEL = (
    "a name of torchvision's or of ours (resnet20, mobilenet_v1), timm.NAME, or "
    "package.module:function"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; a mistake of the user's is one line on standard error and exit code 2."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, OSError) as refusal:
        return refuse(refusal)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser; each command's function is its `run`."""
    top = argparse.ArgumentParser(
        prog="python -m graphpruning",
        description="Channel pruning with a graph aggregator, a PruningNet and a search.",
    )
    commands = top.add_subparsers(required=True, metavar="command")
    _inspect_parser(commands)
    _prune_parser(commands)
    _export_parser(commands)
    return top


def _inspect_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "show a network's layers, edges, groups, MACs, parameters and budget range"
    command = commands.add_parser("inspect", help=about, description=about)
    command.set_defaults(run=_inspect)
    command.add_argument("model", metavar="NAME", help=MODEL)
    command.add_argument(
        "--input-size",
        type=int,
        nargs=3,
        metavar=("C", "H", "W"),
        default=(3, 224, 224),
        help="channels, height and width of an image (default: 3 224 224)",
    )
    command.add_argument("--num-classes", type=int, default=1000, help="(default: 1000)")
    command.add_argument(
        "--widths",
        metavar="FILE",
        help="JSON of group widths, or an architecture: MACs and parameters at these too",
    )
    command.add_argument("--json", action="store_true", help="write JSON")
    command.add_argument("--draw", metavar="FILE", help="draw the graph as .pdf, .png or .svg")


def _prune_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "find and train a narrower network on a folder of images; continues where it stopped"
    command = commands.add_parser("prune", help=about, description=about)
    command.set_defaults(run=_prune)
    add = command.add_argument
    add("--model", required=True, help=MODEL)
    add(
        "--weights",
        metavar="FILE",
        help="the trained network's weights (.safetensors, .pth, .pt, also in a checkpoint: "
        "docs/weights.md), for this number of classes; FILE:KEY for one of several networks in it; "
        "without them its accuracy is not known, and training starts from scratch",
    )
    add(
        "--data",
        required=True,
        metavar="IMAGE_FOLDER",
        help="folder with train/CLASS/ and val/CLASS/ (if missing: test/CLASS/); "
        "docs/images.md says which files are read",
    )
    add(
        "--budget",
        required=True,
        nargs="+",
        help="one or several: a share of the full network's MACs (50%%, 0.5), MACs (300M, 405600), "
        "or a measured time (3ms, see --device and --batch)",
    )
    add(
        "--method",
        default="graphpruning",
        help="graphpruning (default); graphpruning-plus, which goes beyond the paper: it begins "
        "with --weights and learns from them; predictor, which lets a predictor of accuracy "
        "propose candidates; metapruning, amc, random, uniform, group-norm; or "
        "another row of graphpruning/methods.py",
    )
    add("--out", required=True, metavar="DIR", help="a folder for what is found; made if missing")
    add(
        "--input-size",
        type=int,
        nargs=3,
        metavar=("C", "H", "W"),
        default=(3, 224, 224),
        help="what the network sees of an image; 1 H W is grey (default: 3 224 224)",
    )
    add("--epochs", type=float, help="of the final training (default: by the number of images)")
    add("--pruningnet-epochs", type=float, help="of the PruningNet (default: half as many)")
    add("--evaluations", type=int, default=100, help="candidates to judge (default: 100)")
    add("--batch-size", type=int, help="(default: by the number of images)")
    add(
        "--lr",
        type=float,
        help="of the PruningNet and of a start from scratch; a start from "
        "trained weights has a fifth (default: 0.1 x batch size / 128)",
    )
    add(
        "--initial",
        choices=("inherited", "generated", "scratch"),
        help="what the final training starts from: the trained weights, cut and fitted again; "
        "those that the search used; or fresh ones (default: inherited with --weights, else "
        "scratch)",
    )
    add(
        "--mean",
        type=float,
        nargs="+",
        help="of each channel, as the weights were trained with (default: ImageNet's; for grey "
        "images the average of its three)",
    )
    add("--std", type=float, nargs="+", help="the same")
    add(
        "--no-flip",
        dest="flip",
        action="store_false",
        help="train without mirrored images: for letters, signs, or whatever left and right tell "
        "apart",
    )
    add("--divisor", type=int, default=8, help="widths are its multiples (default: 8)")
    add(
        "--smallest",
        type=float,
        default=0.1,
        help="smallest share of a group's channels (default: 0.1)",
    )
    add(
        "--keep",
        nargs="+",
        action="extend",
        default=[],
        metavar="LAYERS",
        help="layers that stay as wide as they are, by pattern: 'layer4.*'",
    )
    add(
        "--limit",
        nargs="+",
        action="extend",
        default=[],
        metavar="LAYERS=LOW:HIGH",
        help="least and largest share of the channels of some layers: 'layer1.*=0.5:1'",
    )
    add("--device", help="where networks are timed: cpu, cuda (default: where they are trained)")
    add("--batch", type=int, default=1, help="images of a timed batch (default: 1)")
    add(
        "--latency-table",
        metavar="FILE",
        help="measured times of layers, filled as needed (default: latency_table.json in --out)",
    )
    add("--seed", type=int, default=0, help="(default: 0)")
    add("--workers", type=int, default=0, help="processes that decode images (default: 0)")
    add("--precision", default="auto", help="auto (default), 32-true or bf16-mixed")


def _export_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "write a found network as ONNX, and check it under onnxruntime"
    command = commands.add_parser("export", help=about, description=about)
    command.set_defaults(run=_export)
    command.add_argument("architecture", metavar="ARCHITECTURE.json")
    command.add_argument("--onnx", required=True, metavar="FILE", help="the file to write")
    command.add_argument("--weights", metavar="FILE", help="weights other than those it names")
    command.add_argument(
        "--model",
        metavar="package.module:function",
        help="your function that builds the full network, where the architecture names one",
    )


def _inspect(options: argparse.Namespace) -> None:
    from graphpruning.inspection import describe, read_widths, text, to_json

    widths = read_widths(options.widths) if options.widths else None
    found = describe(options.model, tuple(options.input_size), options.num_classes, widths)
    if options.draw:
        from graphpruning.drawing import draw

        draw(found, options.draw)
    print(to_json(found) if options.json else text(found))


def _prune(options: argparse.Namespace) -> None:
    from graphpruning.common.watch import watch
    from graphpruning.pruning import prune

    if not launched():  # torchrun tells by itself how its processes ended
        watch("prune")
    chosen = {key: value for key, value in vars(options).items() if key != "run"}
    chosen["limit"] = dict(map(_limit, options.limit))
    if len(options.budget) == 1:
        (chosen["budget"],) = options.budget
    prune(**chosen)


def _limit(text: str) -> tuple[str, tuple[float, float]]:
    """The pattern and the two shares of `PATTERN=LOW:HIGH`."""
    pattern, _, shares = text.rpartition("=")
    try:
        low, high = map(float, shares.split(":"))
    except ValueError:
        pattern = ""
    if not pattern:
        raise UserError(f"--limit {text!r} is not LAYERS=LOW:HIGH, such as 'layer1.*=0.5:1'")
    return pattern, (low, high)


def _export(options: argparse.Namespace) -> None:
    from graphpruning.architecture import load_architecture, read_architecture
    from graphpruning.builder import imported
    from graphpruning.export import export_onnx

    build = imported(options.model) if options.model else None
    described = read_architecture(options.architecture)
    if described["weights"] is None and options.weights is None:
        raise UserError(
            f"{options.architecture} names no weights to export: train it, then give "
            "them by --weights"
        )
    model = load_architecture(options.architecture, options.weights, build=build)
    size = tuple(described["input_size"])
    difference = export_onnx(model, size, options.onnx, described.get("classes"))
    print(f"{options.onnx}: outputs differ from PyTorch's by {difference:.1e} of the largest")


if __name__ == "__main__":
    end_on_signals()
    keep_freed_memory()
    sys.exit(main())
