"""A network as ONNX, checked under onnxruntime before the file gets its name."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from graphpruning.common.errors import UserError, reason
from graphpruning.common.files import atomic

TOLERANCE = 1e-4
"""Outputs may differ by this share of the largest one: fp32 sums in another order."""
_EXTRA = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(
    model: nn.Module,
    input_size: tuple[int, ...],
    path: str | Path,
    classes: Sequence[str] | None = None,
) -> float:
    """Write `model` to `path` for batches of any size; return the largest share outputs differ by.

    Its input is `images` [batch, channels, height, width], its output `logits` [batch, classes].
    The names of `classes`, in the order of the logits, become its metadata `classes`, a JSON list.
    Both runtimes see the same random images. Raises `UserError` when the extra `onnx` is not
    installed, when PyTorch cannot export the network, and when the outputs are not finite or differ
    by more than `TOLERANCE`; there is then no file.
    """
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        raise UserError(f"ONNX needs {', '.join(missing)}: pip install 'graphpruning[onnx]'")
    was_training = model.training
    model.eval()
    images = torch.randn(3, *input_size, generator=torch.Generator().manual_seed(0))
    try:
        with atomic(path) as beside:
            _export(model, images[:2], beside, classes)
            batches = images[:1], images
            worst = 0.0
            for batch, found in zip(batches, _run(beside, batches, path), strict=True):
                with torch.no_grad():
                    expected = model(batch)
                # A difference of NaN would count as none: `max` passes over it.
                if not (expected.isfinite().all() and np.isfinite(found).all()):
                    raise UserError(
                        f"{path}: the network's outputs are infinite or no numbers (NaN), which "
                        "other weights would mend; the file is not kept"
                    )
                difference = float((torch.from_numpy(found) - expected).abs().max())
                worst = max(worst, difference / max(1e-30, float(expected.abs().max())))
            if not worst <= TOLERANCE:
                raise UserError(
                    f"{path}: under onnxruntime the outputs differ by {worst:.1e} of the largest, "
                    f"more than {TOLERANCE:.0e}; the file is not kept"
                )
    finally:
        model.train(was_training)
    return worst


def _run(model: Path, batches: Sequence[torch.Tensor], path: Path | str) -> list[np.ndarray]:
    """The logits under onnxruntime; whatever it raises is said in a line."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return [session.run(["logits"], {"images": batch.numpy()})[0] for batch in batches]
    except Exception as error:  # its errors have no class in common but this one
        raise UserError(
            f"{path}: onnxruntime does not run the network, so the file is not kept: "
            f"{reason(error)}"
        ) from error


def _export(
    model: nn.Module, images: torch.Tensor, path: Path, classes: Sequence[str] | None
) -> None:
    try:
        program = torch.onnx.export(
            model,
            (images,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        assert program is not None
        if classes is not None:
            program.model.metadata_props["classes"] = json.dumps(list(classes))
        program.save(path, external_data=False)
    except Exception as error:  # the exporter raises whatever its many parts raise
        raise UserError(
            f"{type(model).__name__} cannot be written as ONNX: {reason(error)}"
        ) from error
