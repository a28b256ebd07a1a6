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
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from experiments.common.commit import Commit, commit_of
from experiments.common.lazy import absent
from experiments.common.processes import gathered, spread_out
from experiments.common.study import Study, budget_name, parse
from experiments.common.study_file import PARAMS, read_study_file
from graphpruning.common.distributed import barrier, world
from graphpruning.common.errors import UserError
from graphpruning.common.files import (
    alone,
    read_text,
    sha256,
    unwritable,
    write_json,
    write_text,
)
from graphpruning.common.machine import end_on_signals, is_writer, launched, processor, refuse
from graphpruning.common.memory import keep_freed_memory
from graphpruning.common.names import nearest
from graphpruning.common.watch import watch

with warnings.catch_warnings(), absent("pandas"):  # Sacred would import it
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
    watches is what the stage uses. `items` are the stage's own keys (model, method, ..., seed);
    `kind` is the stage's name in dvc.yaml.
    """

    kind: str
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
        return f"{self.kind}@{'-'.join([self.study.study, *self.items.values()])}"

    @property
    def seed(self) -> int:
        """The replicate's seed, from which everything random in the stage is drawn."""
        return int(self.items["seed"])

    @property
    def results(self) -> Path:
        """results/STUDY."""
        return Path("results") / self.study.study

    @property
    def manifest(self) -> Path:
        """The list of the study's image files that `prepare` writes."""
        return Path("data/manifests", f"{self.study.study}.tsv.gz")

    @property
    def weights(self) -> Path:
        """models/STUDY: weights, in DVC's cache and not in git."""
        return Path("models") / self.study.study

    @property
    def checkpoints(self) -> Path:
        """Where this stage keeps what lets it resume; removed when it ends well."""
        return Path("checkpoints", self.study.study, self.kind, "-".join(self.items.values()))

    def remove_checkpoints(self) -> None:
        """Remove what let the stage resume."""
        if is_writer():
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def folder(self, name: str) -> Path:
        """results/STUDY/NAME/ITEM/...: where the stage's small files go."""
        return self.results.joinpath(name, *self.items.values())

    def weights_file(self, name: str) -> Path:
        """models/STUDY/NAME/ITEM/....safetensors: weights of the stage's own network."""
        *folders, last = self.items.values()
        return self.weights.joinpath(name, *folders, f"{last}.safetensors")

    def weights_of(self, source: str) -> Path:
        """The base's weights ("base"), or those of the PruningNet of a conditioning."""
        return self.weights / self.items["model"] / self.items["seed"] / f"{source}.safetensors"

    def without(self, item: str) -> "Context":
        """The same for fewer items: what other stages left that do not have this one."""
        items = {key: value for key, value in self.items.items() if key != item}
        return replace(self, items=items)

    def fingerprint(self, **more: Any) -> dict[str, Any]:
        """What must be equal for a checkpoint to be continued."""
        settings = {name: _plain(getattr(self.study, name)) for name in self.sections}
        if "networks" in settings and "model" in self.items:  # another model's changes nothing
            settings["networks"] = settings["networks"][self.items["model"]]
        for where in ("root", "workers"):  # the manifest says which images there are
            settings.get("data", {}).pop(where, None)
        return {
            "stage": self.name,
            **settings,
            "images": sha256(self.manifest) if self.manifest.exists() else None,
            "precision": self.precision,
            "torch": version("torch"),
            "code": _code_hash(),
            **more,
        }

    def log(self, name: str, value: float, step: int) -> None:
        """Record a metric with Sacred."""
        if self.run is not None:
            self.run.log_scalar(name, value, step)


class _Declared:
    """A study of which only some sections may be looked at."""

    def __init__(self, study: Study, sections: Sequence[str]) -> None:
        self._study = study
        self._sections = ("study", *sections)

    def __getattr__(self, section: str) -> Any:
        if section not in self._sections:
            raise AssertionError(f"section {section!r} is used but not declared by this stage")
        return getattr(self._study, section)


@dataclass(frozen=True)
class Stage:
    """A stage's face: its function, the folder of its small files below results/STUDY, the study's
    sections that it reads, and its own keys.

    `kind` gives the stage's name in dvc.yaml from its items, where it is not the module's. A stage
    that is `single` is one process's work, however many there are.
    `study_file` is read by `parse`.
    """

    work: Callable[[Context], None]
    folder: str
    sections: tuple[str, ...]
    items: tuple[str, ...] = ()
    kind: Callable[[dict[str, str]], str] | None = None
    single: bool = False
    study_file: Path = PARAMS
    parse: Callable[[Any, str], Any] = parse

    @property
    def module(self) -> str:
        return self.work.__module__ if self.work.__module__ != "__main__" else _main_module()

    def main(self) -> None:
        """Run from the command line; a refusal is one line on stderr and exit code 2."""
        gc.enable()  # see the package
        gc.freeze()
        end_on_signals()
        keep_freed_memory()
        if self.single:
            gathered()
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        if not is_writer():  # the others would say the same
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        try:
            if not self.single:
                spread_out(self.module)
            raw = read_study_file(self.study_file)
            study = self.parse(raw, str(self.study_file))
            check_words(sys.argv[1:], self.items, self.sections)
        except UserError as refusal:
            sys.exit(refuse(refusal))
        experiment = Experiment(self.module, save_git_info=False)
        experiment.logger = _quiet_logger()
        sections = {name: raw[name] for name in ("study", *self.sections) if name in raw}
        experiment.add_config(sections)
        experiment.add_config({**dict.fromkeys(self.items), "seed": 0})  # Sacred wants one
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
                items = self._items(_config, study)
                changed = {key: _config[key] for key in sections if _config[key] != raw[key]}
                chosen = self.parse({**raw, **changed}, str(self.study_file)) if changed else study
                context = self._context(chosen, items)
                context.run = _run
                done.append(context)
                self._work(context)
            except (UserError, OSError) as refusal:
                raise SystemExit(refuse(refusal)) from None

        try:
            experiment.run_commandline(arguments)
            if done and observer.dir is not None:
                record = done[0].results / "records" / done[0].name
                keep_record(Path(observer.dir), record, "seed" in self.items)
            if done:  # nothing of the stage can fail any more
                done[0].remove_checkpoints()
        except (UserError, OSError) as refusal:
            sys.exit(refuse(refusal))

    def _items(self, config: dict[str, Any], study: Study) -> dict[str, str]:
        said = [word.partition("=")[0] for word in sys.argv]
        if missing := [item for item in self.items if item not in said]:
            raise UserError(f"{self.module}: say `with {missing[0]}=...`")
        items = {item: str(config[item]) for item in self.items}
        check_items(items, study)
        return items

    def _context(self, study: Study, items: dict[str, str]) -> Context:
        if "threads" in self.sections and study.threads is not None:
            import torch  # every stage that computes has it already

            torch.set_num_threads(study.threads)
        kind = self.kind(items) if self.kind else self.module.rpartition(".")[2]
        declared = cast(Study, _Declared(study, self.sections))
        return Context(kind, self.sections, declared, items)

    def _command(self, items: dict[str, str]) -> str:
        words = " ".join(f"{key}={value}" for key, value in items.items())
        return f"python -m {self.module}" + (f" with {words}" if words else "")

    def _work(self, context: Context) -> None:
        if not launched():  # torchrun tells by itself how its processes ended
            watch(context.name)
        lock = Path("checkpoints", context.study.study, "locks", context.name)
        with alone(lock, f"the stage {context.name}") if is_writer() else nullcontext():
            timed(self.work, context, self._command(context.items), self.folder)
            barrier()  # nobody needs a checkpoint any more


class _Records(FileStorageObserver):
    """Sacred's records in a folder; where it cannot be written to, the run is refused."""

    def started_event(self, *arguments: Any, **values: Any) -> Any:
        """Write what is known at the start of a run."""
        try:
            return super().started_event(*arguments, **values)
        except OSError as error:  # Sacred would print its traceback
            raise SystemExit(refuse(unwritable(error, error.filename or RUNS))) from None


def timed(work: Callable[[Context], None], context: Context, command: str, folder: str) -> None:
    """Do the work of a stage, and write what it took, and the command, beside its small files."""
    started = datetime.now(UTC)
    commit = commit_of(Path.cwd())  # before the work, during which somebody may commit
    clock = time.perf_counter()
    work(context)
    seconds = time.perf_counter() - clock
    sidecar = _sidecar(context, command, started, seconds, commit)
    write_json(context.folder(folder) / "run.json", sidecar)


def check_words(words: Sequence[str], items: Sequence[str], sections: Sequence[str]) -> None:
    """Refuse what follows `with` on the command line and sets nothing: a word that Sacred takes for
    the name of a configuration, or a key that the stage does not read.
    """
    known = (*items, "study", *sections)
    updates = list(words)[list(words).index("with") + 1 :] if "with" in words else []
    before_flags = itertools.takewhile(lambda word: not word.startswith("-"), updates)
    for word in before_flags:
        key, is_set, _ = word.partition("=")
        if key == "seed" and "seed" not in items:
            raise UserError(f"with {word}: this stage draws nothing from a seed of its own")
        if is_set and (first := key.partition(".")[0]) not in known:
            raise UserError(
                f"with {word}: this stage does not read {first!r}; did you mean "
                f"{nearest(first, known)!r}?"
            )
        if not is_set and not Path(word).is_file():
            meant = f"did you mean {nearest(word, items)!r}?" if items else "this stage has no keys"
            raise UserError(f"with {word}: say KEY=VALUE; {meant}")


def check_items(items: dict[str, str], study: Study) -> None:
    """Refuse a model, method, budget, seed or conditioning that the study does not list."""
    further = "training" in items
    for item, value in items.items():
        listed = {
            "model": lambda: study.models,
            "method": lambda: study.again.methods if further else study.methods,
            "budget": lambda: tuple(map(budget_name, study.budgets)),
            "seed": lambda: tuple(map(str, study.seeds)),
            "conditioning": lambda: study.pruningnet.conditionings,
            "training": lambda: tuple(map(str, study.again.trainings)),
        }[item]()
        if value not in listed:
            instead = f"did you mean {nearest(value, listed)!r}?" if listed else "none is"
            section = "again of " if further and item in ("method", "training") else ""
            raise UserError(f"{item}={value} is not in {section}{PARAMS}: {instead}")


def _sidecar(
    context: Context, command: str, started: datetime, seconds: float, commit: Commit
) -> dict[str, Any]:
    """Times, commit, machine and versions: beside the metrics, never in them."""
    return {
        "stage": context.name,
        "record": f"records/{context.name}",
        "command": command,
        "seconds": round(seconds, 2),
        "started": started.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "resumed": context.resumed,
        **commit._asdict(),
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


def keep_record(run: Path, record: Path, has_seed: bool) -> None:
    """Copy Sacred's record of a run to results/, without host name and absolute paths."""
    beside = record.with_name(f".{os.getpid()}.{record.name}")
    for name in ("config.json", "run.json", "metrics.json", "cout.txt"):
        if not (run / name).exists():
            continue
        text = read_text(run / name, "Sacred")
        text = text.replace(str(Path.cwd()), ".").replace(str(Path.home()), "~")
        if name == "run.json":
            record_data = _whole(text, run / name)
            record_data.get("host", {}).pop("hostname", None)
            record_data.get("host", {}).pop("ENV", None)
            text = json.dumps(record_data, indent=1) + "\n"
        if name == "config.json":
            config = _whole(text, run / name)
            if not has_seed:
                config.pop("seed", None)  # Sacred's own
            text = json.dumps(config, indent=1) + "\n"
        write_text(beside / name, text)
    shutil.rmtree(record, ignore_errors=True)
    beside.rename(record)


def _whole(text: str, path: Path) -> Any:
    """What Sacred wrote, which it does not do in one step."""
    try:
        return json.loads(text)
    except ValueError:
        raise UserError(
            f"{path} is not whole (a full disk?): start the stage again, it goes on from its end"
        ) from None


def _code_hash() -> str:
    """SHA-256 of every module of ours that this stage has imported, its own file with them."""
    files = {}
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if name == "__main__" and spec:
            name = spec.name  # the stage's own
        if spec and spec.origin and name.split(".")[0] in ("experiments", "graphpruning"):
            files[name] = spec.origin
    digest = hashlib.sha256()
    for _, file in sorted(files.items()):
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
