"""Which modules are one operation, and how a network that calls the operation itself is read.

Subclasses are common: a convolution that pads by itself, a normalisation with an activation in it.
One that inherits `forward` is what its base is. Any other is looked into, and where its `forward`
calls `F.conv2d`, `F.batch_norm` and the like with the module's own weights, the call becomes a
`call_module` node. So such a node always means the base's operation, and `plain` computes it.
"""

import inspect
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn

from graphpruning.common.errors import UnsupportedNetwork
from graphpruning.network.standardised import Standardised, forward, standardisation

Convolution = nn.Conv2d | nn.ConvTranspose2d
BatchNorm = nn.BatchNorm2d | nn.BatchNorm1d | nn.SyncBatchNorm
GroupedNorm = nn.GroupNorm | nn.InstanceNorm2d
Norm = BatchNorm | GroupedNorm | nn.LayerNorm

_BASES: tuple[type[nn.Module], ...] = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Linear,
    nn.BatchNorm2d,
    nn.BatchNorm1d,
    nn.SyncBatchNorm,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.PReLU,
)
"""Modules with weights that have channels."""


def base_of(module: nn.Module) -> type[nn.Module] | None:
    """The class in PyTorch whose weights `module` has; None for another kind of module."""
    return next((base for base in _BASES if isinstance(module, base)), None)


def is_leaf(module: nn.Module) -> bool:
    """Whether the module's operation is known as a whole."""
    kind = type(module)
    if isinstance(module, nn.Sequential) or "forward" in vars(module):  # that is somebody's own
        return False
    if kind.__module__.startswith("torch.nn"):
        return True
    base = base_of(module)
    if base is None:
        parents = [parent for parent in kind.__mro__ if parent.__module__.startswith("torch.nn.")]
        base = parents[0] if parents else nn.Module
    own = [name for name in ("forward", "_conv_forward") if hasattr(base, name)]
    return base is not nn.Module and all(getattr(kind, n) is getattr(base, n) for n in own)


def plain(module: nn.Module, input: Tensor, how: Standardised | None = None) -> Tensor:
    """What a `call_module` node computes: the operation of PyTorch's own class.

    `how` says what is done to the weight before, see `standardised_layers`.
    """
    base = base_of(module)
    if how is not None:
        assert isinstance(module, nn.Conv2d)
        return forward(module, input, how)
    own = base is None or (type(module).forward is base.forward and "forward" not in vars(module))
    result: Tensor = module(input) if own else base.forward(module, input)  # type: ignore
    return result


def filters(module: nn.Module) -> Tensor:
    """Return a layer's weight as [filters, columns, ...]; a transposed one stores it otherwise."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if not isinstance(module, nn.ConvTranspose2d):
        return weight
    parts: Tensor = weight.unflatten(0, (module.groups, -1)).transpose(1, 2)
    return parts.flatten(0, 1)


def as_stored(weight: Tensor, transposed: bool, groups: int) -> Tensor:
    """The inverse of `filters`: a weight [filters, columns, ...] as the layer's module has it."""
    if not transposed:
        return weight
    parts: Tensor = weight.unflatten(0, (groups, -1)).transpose(1, 2)
    return parts.flatten(0, 1)


def standardised_layers(module: fx.GraphModule) -> dict[str, Standardised]:
    """What the layers of a traced network do to their weights before they use them, by name."""
    found: dict[str, Standardised] = module.meta["standardised"]
    return found


_CALLS: dict[Any, tuple[type[nn.Module], ...]] = {
    F.conv2d: (nn.Conv2d,),
    F.conv_transpose2d: (nn.ConvTranspose2d,),
    F.linear: (nn.Linear,),
    F.batch_norm: (nn.BatchNorm2d, nn.BatchNorm1d, nn.SyncBatchNorm),
    F.instance_norm: (nn.InstanceNorm2d,),
    F.group_norm: (nn.GroupNorm,),
    F.layer_norm: (nn.LayerNorm,),
    F.prelu: (nn.PReLU,),
}
ARGUMENTS: dict[Any, tuple[str, ...]] = {
    F.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    F.conv_transpose2d: (
        *("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    ),
    F.linear: ("input", "weight", "bias"),
    F.prelu: ("input", "weight"),
}
"""Arguments of functions in C, which `inspect` does not know."""
_DEFAULTS: dict[str, Any] = {
    "bias": None,
    "stride": 1,
    "padding": 0,
    "output_padding": 0,
    "dilation": 1,
    "groups": 1,
}
_FREE = {"training", "momentum", "use_input_stats", "normalized_shape"}
"""Arguments that say nothing of the layer, or (a shape) follow from its weights."""


def as_called(model: nn.Module, graph: fx.Graph, training: bool) -> dict[str, Standardised]:
    """Put `call_module` nodes in place of functions that are called with a module's own weights.

    Return what layers do to their weights before they use them, by name. `training` is the mode
    that the network was recorded in.
    """
    done: dict[str, Standardised] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _CALLS:
            continue
        owner = _owner(model, node)
        if owner is None and node.target is F.conv2d:
            owner = _standardising(model, node, done)
        if owner is None:
            if node.target is F.conv2d:
                _as_filter(node)
            continue
        name, module = owner
        given = _arguments(node)
        left_out = {
            key: _DEFAULTS[key] for key in ARGUMENTS.get(node.target, ()) if key in _DEFAULTS
        }
        known = {"input", "weight"} if name in done else {"input"}
        for key, value in (left_out | given).items():
            if key not in known and not _is_own(module, name, key, value):
                raise UnsupportedNetwork(
                    f"{type(model).__name__}: {name} calls {node.target.__name__} with another "
                    f"{key} than its own; only a layer's own is followed"
                )
        if not training:
            _refuse_batch_statistics(f"{type(model).__name__}: {name}", node, module, given)
        with graph.inserting_before(node):
            called = graph.call_module(name, (given["input"],))
        called.meta = dict(node.meta)
        node.replace_all_uses_with(called)
        graph.erase_node(node)
    for node in reversed(graph.nodes):  # weights, and what was done to them
        if not node.users and (node.op == "get_attr" or node.meta.get("of_weight")):
            graph.erase_node(node)
    return done


def _refuse_batch_statistics(
    where: str, node: fx.Node, module: nn.Module, given: dict[str, Any]
) -> None:
    """A normalisation that has running statistics, and does not use them in evaluation mode."""
    keys: dict[Any, str] = {F.batch_norm: "training", F.instance_norm: "use_input_stats"}
    key = keys.get(node.target)
    if key and getattr(module, "track_running_stats", False) and given.get(key, key != "training"):
        raise UnsupportedNetwork(
            f"{where} normalises by the statistics of its input in evaluation mode too, although "
            f"it keeps running ones; call it with {key}=self.training"
        )


def _standardising(
    model: nn.Module, node: fx.Node, done: dict[str, Standardised]
) -> tuple[str, nn.Module] | None:
    """The convolution that standardises its own weight, and calls the function with the result."""
    weight = _arguments(node)["weight"]
    found = standardisation(weight, _arguments)
    if found is None:
        return None
    parameter, how = found
    name, _, attribute = parameter.rpartition(".")
    module = model.get_submodule(name)
    own = how.gain is None or how.gain.rpartition(".")[0] == name
    if attribute != "weight" or not isinstance(module, nn.Conv2d) or not own:
        return None
    done[name] = how
    behind = [weight]
    while behind:  # these nodes go with the call
        one = behind.pop()
        one.meta["of_weight"] = True
        behind += one.all_input_nodes
    return name, module


def each_channel(
    input: Tensor, weight: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> Tensor:
    """Filter each channel of `input` by itself, with `weight` [channels or 1, 1, height, width]."""
    channels = input.shape[1]
    weight = weight.expand(channels, *weight.shape[1:])
    return F.conv2d(input, weight, None, stride, padding, dilation, channels)


def _as_filter(node: fx.Node) -> None:
    """A convolution of each channel by itself says no more how many there are."""
    given = {**_DEFAULTS, **_arguments(node)}
    shapes = [given[key].meta.get("shape") for key in ("input", "weight")]
    groups = given["groups"]
    if isinstance(groups, fx.Node):  # such as `x.shape[1]`
        groups = groups.meta.get("number")
    if given["bias"] is None and (groups, 1) == shapes[1][:2] and groups == shapes[0][1]:
        node.target = each_channel
        node.args = tuple(
            given[key] for key in ("input", "weight", "stride", "padding", "dilation")
        )
        node.kwargs = {}


def _owner(model: nn.Module, node: fx.Node) -> tuple[str, nn.Module] | None:
    """The module whose weights, or in whose `forward`, the function is called."""
    weight = _arguments(node).get("weight")
    if isinstance(weight, fx.Node) and weight.op == "get_attr":
        name, _, attribute = str(weight.target).rpartition(".")
        if attribute != "weight":
            return None
    elif weight is None and (stack := node.meta.get("nn_module_stack")):
        name = next(reversed(stack.values()))[0]
    else:
        return None
    module = model.get_submodule(name)
    return (name, module) if isinstance(module, _CALLS[node.target]) else None


def _arguments(node: fx.Node) -> dict[str, Any]:
    """The function's arguments by name."""
    assert callable(node.target)
    names = ARGUMENTS.get(node.target) or tuple(inspect.signature(node.target).parameters)
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _is_own(module: nn.Module, name: str, key: str, value: Any) -> bool:
    """Whether the module itself would give this argument."""
    if key in _FREE:
        return True
    if isinstance(value, fx.Node):
        return value.op == "get_attr" and value.target == (f"{name}.{key}" if name else key)
    own = getattr(module, key, _DEFAULTS.get(key))
    if value is None:
        return own is None
    return bool(_as_tuple(own) == _as_tuple(value))


def _as_tuple(value: Any) -> Any:
    """`3` and `(3, 3)` are one kernel."""
    if isinstance(value, tuple | list) and len(set(value)) == 1:
        return value[0]
    return tuple(value) if isinstance(value, list) else value
