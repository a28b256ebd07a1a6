"""A stage starts without what it does not use.

torch's optimizers, Lightning and PyG import torch's compiler, which takes as long as all the rest
of torch, and then ask it next to nothing: no stage compiles. PyG imports all of its data sets, with
pandas. So these two stand in `sys.modules` empty, and each becomes the real module, in place, as
soon as it is asked for what it does not have.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any

COMPILER, DATA_SETS = "torch._dynamo", "torch_geometric.datasets"
_ANSWERS = ("OptimizedModule", "disable", "graph_break")
_LOADING = RLock()


def postpone() -> None:
    """Let `import` of the two load them when they are used; not if they have been imported."""
    sys.meta_path.insert(0, _Finder())


@contextmanager
def absent(name: str) -> Iterator[None]:
    """Let an optional import of the module `name` fail here, unless it has been imported."""
    is_hidden = name not in sys.modules
    if is_hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if is_hidden:
            del sys.modules[name]


class _Finder(MetaPathFinder):
    """Finds the two; before a part of one is imported, the whole is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in (COMPILER, DATA_SETS):
            spec = PathFinder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Postponing(spec.loader)
            return spec
        package = sys.modules.get(name.rpartition(".")[0])
        if isinstance(package, _Postponed):
            package._load()
            if name in sys.modules:  # it has imported this part itself
                return ModuleSpec(name, _Ready(sys.modules[name]))
        return None


class _Postponing(Loader):
    """Leaves the module empty, but for the answers that do not need it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        if module.__name__ == COMPILER:
            vars(module).update(_answers(module))
        module.__class__ = _Postponed


class _Postponed(ModuleType):
    """A module that is loaded when it is asked for what it does not have."""

    def __getattr__(self, name: str) -> Any:
        self._load()
        if type(self) is _Postponed:  # this is being asked while the module is loaded
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self, name)

    def _load(self) -> None:
        with _LOADING:  # other threads wait
            if type(self) is not _Postponed or "_is_loading" in vars(self):
                return
            vars(self)["_is_loading"] = True
            for function in vars(self).pop("_asked", ()):
                vars(function).pop("__dynamo_disable", None)  # torch asks again
            for answer in _ANSWERS:
                vars(self).pop(answer, None)
            try:
                assert self.__spec__ is not None and self.__spec__.loader is not None
                self.__spec__.loader.exec_module(self)
                self.__class__ = ModuleType  # type: ignore[assignment]
            finally:
                del vars(self)["_is_loading"]


class _Ready(Loader):
    """Gives a part of a package that was imported while the package was loaded."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


def _answers(compiler: ModuleType) -> dict[str, Any]:
    """What `compiler` answers as long as nothing is compiled (torch/_compile.py, torch/optim/)."""
    asked: list[Callable[..., Any]] = []

    class OfCompiler(type):
        def __instancecheck__(cls, instance: object) -> bool:
            is_loaded = not isinstance(compiler, _Postponed)
            return is_loaded and isinstance(instance, compiler.OptimizedModule)

    class OptimizedModule(metaclass=OfCompiler):
        """Lightning keeps it for `isinstance`: true of what the real compiler has made."""

    def disable(function: Any = None, recursive: bool = True, **settings: Any) -> Any:
        """Torch keeps the answer on its own function, as `__dynamo_disable`, and wraps nothing."""
        if settings != {"wrapping": False}:
            return compiler._load() or compiler.disable(function, recursive, **settings)
        asked.append(function)
        return function

    def graph_break(msg: str = "") -> None:
        """Nothing to break."""

    given = (OptimizedModule, disable, graph_break)
    return {**dict(zip(_ANSWERS, given, strict=True)), "_asked": asked}
