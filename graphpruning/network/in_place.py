"""Whether a network changes the images that it is given, which are judged with again."""

from torch import fx


def writes_into_images(module: fx.GraphModule) -> bool:
    """Say whether an operation in place reaches the image, or what may be a view of it.

    What a layer makes is no view; of any other operation that is not asked, so the answer may be
    yes too often, and never no. (`x += 1` is recorded as `x + 1`, so that is no such operation.)
    """
    return any(
        _origin(node).op == "placeholder" for node in module.graph.nodes if _in_place(node, module)
    )


def _in_place(node: fx.Node, module: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    if node.op not in ("call_method", "call_function"):
        return False
    name = str(getattr(node.target, "__name__", node.target))
    asked = any(value is True for value in (node.kwargs.get("inplace"), *node.args))  # 1 == True
    return asked or (name.endswith("_") and not name.endswith("__"))


def _origin(node: fx.Node) -> fx.Node:
    """The image, or the layer or parameter whose tensor the operation changes."""
    while node.op in ("call_method", "call_function") or _in_front(node):
        before = node.all_input_nodes
        if not before:
            break
        node = before[0]
    return node


def _in_front(node: fx.Node) -> bool:
    """Whether a module only passes on what it is given, as an activation in place does."""
    module = node.graph.owning_module
    if node.op != "call_module" or module is None:
        return False
    return not list(module.get_submodule(str(node.target)).parameters(recurse=False))
