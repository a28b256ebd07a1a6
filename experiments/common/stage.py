"""What every stage shares: the study's sections, a Sacred run, the sidecar, and refusals.

A stage is a function of a `Context`. It is run as `python -m experiments.NAME with model=...`,
with all of Sacred's own flags (`-F`, `-m`, `-s` add observers; `-u` runs without any). Under
`torchrun -m experiments.NAME` all processes run it, and the first one speaks, writes and records.
"""

import gc
import hashlib
import itertools
import json
import logging
import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.common.study import PARAMS, Study, load, nearest, parse
from graphpruning.common.distributed import barrier, world
from graphpruning.common.errors import UserError
from graphpruning.common.files import alone, read_text, unwritable, write_json, write_text
from graphpruning.common.machine import end_on_signals, is_writer, launched, processor, refuse
from graphpruning.common.watch import watch

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    from sacred import SETTINGS, Experiment
    from sacred.observers import FileStorageObserver

SETTINGS.CAPTURE_MODE = "sys"
SETTINGS.CONFIG.READ_ONLY_CONFIG = False
SETTINGS.DISCOVER_SOURCES = "none"  # git has the sources
SETTINGS.DISCOVER_DEPENDENCIES = "none"  # the sidecar has the versions
SETTINGS.HOST_INFO.INCLUDE_GPU_INFO = False

RUNS = Path("runs")
VERSIONS = ("torch", "torchvision", "torch-geometric", "lightning-fabric", "numpy", "sacred", "dvc")


@dataclass
class Context:
    """What a stage may read and where it writes.

    `study` holds the declared sections only: touching another one is an error, so that what DVC
    watches is what the stage uses. `items` are the stage's own keys (model, method, ...).
    """

    stage: str
    sections: tuple[str, ...]
    study: Study
    items: dict[str, str]
    run: Any = None
    resumed: bool = False
    precision: str = "32-true"
    images_seen: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The stage's name as DVC writes it, for example search_graph@desk-resnet20-..."""
        return f"{self.stage}@{'-'.join([self.study.study, *self.items.values()])}"

    @property
    def results(self) -> Path:
        """results/STUDY."""
        return Path("results") / self.study.study

    @property
    def weights(self) -> Path:
        """models/STUDY: weights, in DVC's cache and not in git."""
        return Path("models") / self.study.study

    @property
    def checkpoints(self) -> Path:
        """Where this stage keeps what lets it resume; removed when it ends well."""
        return (
            Path("checkpoints")
            / self.study.study
            / self.name.partition("@")[0]
            / "-".join(self.items.values())
        )

    def fingerprint(self, **more: Any) -> dict[str, Any]:
        """What must be equal for a checkpoint to be continued."""
        settings = {name: _plain(getattr(self.study, name)) for name in self.sections}
        if "networks" in settings and "model" in self.items:  # another model's changes nothing
            settings["networks"] = settings["networks"][self.items["model"]]
        return {
            "stage": self.name,
            **settings,
            "precision": self.precision,
            "torch": version("torch"),
            "code": _code_hash(),
            **more,
        }

    def log(self, name: str, value: float, step: int) -> None:
        """Record a metric with Sacred."""
        if self.run is not None:
            self.run.log_scalar(name, value, step)


class _Undeclared:
    """Stands for a section of the study that a stage did not declare."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        raise AssertionError(f"section {self._name!r} is used but not declared by this stage")


@dataclass(frozen=True)
class Stage:
    """A stage's face: its function, the study's sections that it reads, and its own keys."""

    work: Callable[[Context], None]
    sections: tuple[str, ...]
    items: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return self.work.__module__ if self.work.__module__ != "__main__" else _main_module()

    def main(self, name: Callable[[dict[str, str]], str] | None = None) -> None:
        """Run from the command line; a refusal is one line on stderr and exit code 2.

        `name` gives DVC's name of the stage from its items, where it is not the module's.
        """
        gc.enable()  # see the package
        gc.freeze()
        end_on_signals()
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        if not is_writer():  # the others would say the same
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        try:
            raw = load()
            check_words(sys.argv[1:], self.items)
        except UserError as refusal:
            sys.exit(refuse(refusal))
        experiment = Experiment(self.module, save_git_info=False)
        experiment.logger = _quiet_logger()
        experiment.add_config({name: raw[name] for name in ("study", *self.sections)})
        experiment.add_config({"seed": 0, **dict.fromkeys(self.items)})
        observer = _Records(RUNS, copy_sources=False)
        arguments = list(sys.argv)
        if is_writer():
            experiment.observers.append(observer)
        else:
            arguments.append("--unobserved")
        done: list[Context] = []

        @experiment.main
        def run(_run: Any, _config: dict[str, Any]) -> None:
            try:
                context = self._context(raw, _config, name)
                context.run = _run
                done.append(context)
                self._work(context)
            except (UserError, OSError) as refusal:
                raise SystemExit(refuse(refusal)) from None

        try:
            experiment.run_commandline(arguments)
            if done and observer.dir is not None:
                keep_record(Path(observer.dir), done[0].results / "records" / done[0].name)
        except (UserError, OSError) as refusal:
            sys.exit(refuse(refusal))

    def _context(
        self,
        raw: dict[str, Any],
        config: dict[str, Any],
        name: Callable[[dict[str, str]], str] | None,
    ) -> Context:
        changed = {key: value for key, value in config.items() if key not in (*self.items, "seed")}
        study = parse({**raw, **changed})
        if "threads" in self.sections and study.threads is not None:
            import torch  # every stage that computes has it already

            torch.set_num_threads(study.threads)
        for section in set(Study.__dataclass_fields__) - {*self.sections, "study"}:
            object.__setattr__(study, section, _Undeclared(section))
        if missing := [item for item in self.items if config[item] is None]:
            raise UserError(f"{self.module}: say `with {missing[0]}=...`")
        items = {item: str(config[item]) for item in self.items}
        check_items(items, raw)
        stage = name(items) if name else self.module.rpartition(".")[2]
        return Context(stage, self.sections, study, items)

    def _work(self, context: Context) -> None:
        if not launched():  # torchrun tells by itself how its processes ended
            watch(context.name)
        lock = Path("checkpoints", context.study.study, "locks", context.name)
        with alone(lock, f"the stage {context.name}") if is_writer() else nullcontext():
            started = datetime.now(UTC)
            clock = time.perf_counter()
            self.work(context)
            seconds = time.perf_counter() - clock
            sidecar = _sidecar(context, self.module, started, seconds)
            write_json(_sidecar_path(context, self.module), sidecar)
            barrier()  # nobody needs a checkpoint any more
            if is_writer():
                shutil.rmtree(context.checkpoints, ignore_errors=True)


class _Records(FileStorageObserver):
    """Sacred's records in a folder; where it cannot be written to, the run is refused."""

    def started_event(self, *arguments: Any, **values: Any) -> Any:
        """Write what is known at the start of a run."""
        try:
            return super().started_event(*arguments, **values)
        except OSError as error:  # Sacred would print its traceback
            raise SystemExit(refuse(unwritable(error, error.filename or RUNS))) from None


def check_words(words: Sequence[str], items: Sequence[str]) -> None:
    """Refuse what follows `with` on the command line and sets nothing; Sacred takes it for the
    name of a configuration.
    """
    updates = list(words)[list(words).index("with") + 1 :] if "with" in words else []
    before_flags = itertools.takewhile(lambda word: not word.startswith("-"), updates)
    for word in before_flags:
        key, is_set, _ = word.partition("=")
        if key == "seed":
            raise UserError("with seed=...: a stage's seed stands in its section of the study")
        if not is_set and not Path(word).is_file():
            hint = nearest(word, items) if items else "this stage takes no key of its own"
            raise UserError(f"with {word}: say KEY=VALUE; {hint}")


def check_items(items: dict[str, str], raw: dict[str, Any]) -> None:
    """Refuse a model, method or conditioning that the study `raw` does not list."""
    lists = {
        "model": ("models",),
        "method": ("methods",),
        "conditioning": ("pruningnet", "conditionings"),
        "conditionings": ("analysis", "conditionings"),
    }
    for item in items.keys() & lists.keys():
        known: Any = raw
        for key in lists[item]:
            known = known[key]
        if items[item] not in known:
            hint = nearest(items[item], known) if known else "there are none"
            raise UserError(f"{item}={items[item]} is not in {PARAMS}: {hint}")


def output(context: Context, module: str) -> Path:
    """The folder under results/ that a stage's small files go to.

    The item `conditionings` is only in the stage's name: it lets DVC leave the stage out.
    """
    folder = FOLDERS[module.rpartition(".")[2]]
    parts = [value for item, value in context.items.items() if item != "conditionings"]
    return context.results.joinpath(folder, *parts)


FOLDERS = {
    "prepare": "splits",
    "train_base": "base",
    "correlation": "correlation",
    "train_pruningnet": "pruningnet",
    "analyse_pruningnet": "generated",
    "search": "search",
    "finetune": "final",
}


def _sidecar_path(context: Context, module: str) -> Path:
    return output(context, module) / "run.json"


def _sidecar(context: Context, module: str, started: datetime, seconds: float) -> dict[str, Any]:
    """Times, machine and versions: beside the metrics, never in them."""
    items = " ".join(f"{key}={value}" for key, value in context.items.items())
    return {
        "stage": context.name,
        "record": f"records/{context.name}",
        "command": f"python -m {module}" + (f" with {items}" if items else ""),
        "seconds": round(seconds, 2),
        "started": started.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "resumed": context.resumed,
        "hardware": hardware(),
        "precision": context.precision,
        "versions": {"python": platform.python_version(), **{v: version(v) for v in VERSIONS}},
        "images_seen": context.images_seen,
        **context.extra,
    }


def hardware() -> dict[str, Any]:
    """This machine, and how many processes work together; never the host's name."""
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "accelerator": ", ".join(names) or "none",
        "memory_gb": round(memory / 2**30),
        "processes": world(),
    }


def keep_record(run: Path, record: Path) -> None:
    """Copy Sacred's record of a run to results/, without host name and absolute paths."""
    beside = record.with_name(f".{os.getpid()}.{record.name}")
    for name in ("config.json", "run.json", "metrics.json", "cout.txt"):
        if not (run / name).exists():
            continue
        text = read_text(run / name, "Sacred")
        text = text.replace(str(Path.cwd()), ".").replace(str(Path.home()), "~")
        if name == "run.json":
            record_data = json.loads(text)
            record_data.get("host", {}).pop("hostname", None)
            record_data.get("host", {}).pop("ENV", None)
            text = json.dumps(record_data, indent=1) + "\n"
        if name == "config.json":
            config = json.loads(text)
            config.pop("seed", None)  # Sacred's own; every stage's seed is in its section
            text = json.dumps(config, indent=1) + "\n"
        write_text(beside / name, text)
    shutil.rmtree(record, ignore_errors=True)
    beside.rename(record)


def _code_hash() -> str:
    """SHA-256 of every module of ours that this stage has imported."""
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.split(".")[0] in ("experiments", "graphpruning") and file:
            digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _quiet_logger() -> Any:
    logger = logging.getLogger("sacred.stage")
    logger.setLevel(logging.CRITICAL)  # a refusal is one line; `-l INFO` says more
    return logger


def _main_module() -> str:
    return str(sys.modules["__main__"].__spec__.name)  # type: ignore[union-attr]


def _plain(value: Any) -> Any:
    """A section as plain data, for a fingerprint."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
