"""timm's networks by name, `timm.NAME`, with fresh weights; timm is an extra."""

import warnings
from typing import Any

from torch import nn

from graphpruning.common.errors import UserError
from graphpruning.common.names import nearest

PREFIX = "timm."


def constructor(name: str) -> Any:
    """The function that builds the network called `name` in timm; its arguments are timm's.

    Only names of timm's own list are known, so nothing is downloaded. Raises `UserError` for
    another name, and without timm.
    """
    try:
        import timm
    except ImportError:
        raise UserError(f"{PREFIX}{name} needs timm: `pip install timm`") from None
    known = timm.list_models()
    if name not in known:
        near = nearest(name, known)
        raise UserError(f"timm has no network {name!r}; did you mean '{PREFIX}{near}'?")

    def build(num_classes: int, in_channels: int) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that timm has replaced
            model: nn.Module = timm.create_model(
                name, pretrained=False, num_classes=num_classes, in_chans=in_channels
            )
        return model

    return build
