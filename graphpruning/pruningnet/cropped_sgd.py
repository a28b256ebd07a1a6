"""SGD for a PruningNet that touches only the part of each map that a step's widths use.

A step at random widths gives no gradient to most of a map, but plain SGD passes over all of it, and
autograd first writes a gradient of that size. Neither is needed:

- The gradient of a map is the outer product of the weight's gradient with the feature, so it is
  added to the cropped part without ever being made.
- Where there is no gradient, weight and momentum `(p, v)` still move, but everywhere alike:
  `(p, v) <- M (p, v)`, with a 2x2 matrix M that follows from the learning rate, momentum and
  weight decay. So what is kept is `(a, b)` with `(p, v) = F (a, b)`, where F is the product of all
  M so far. Then untouched parts stay as they are, and a gradient g adds `F^-1 (-lr, 1) g`.

F comes near to singular within some dozens of steps (its determinant falls with the powers of the
momentum), which would amplify rounding: then, and after every epoch, `settle` writes the true
values of (p, v) out and begins anew with F = 1.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD

from graphpruning.common.distributed import sum_over_ranks, world
from graphpruning.pruningnet.generator import (
    Index,
    WeightGenerator,
    add_outer,
    crop,
    gathered,
    product,
    shared,
)
from graphpruning.pruningnet.pruningnet import PruningNet

WORST_CONDITION = 100.0
"""Of F: rounding errors of a step are amplified by this at most."""


class CroppedSGD(SGD):
    """As clipped SGD on all of `net`'s parameters, within rounding, but at the crop's cost.

    With the clipped gradient g, learning rate lr, momentum m and weight decay d a step does

        v <- m v + g + d p
        p <- p - lr v, with Nesterov: p - lr (g + d p + m v)

    Until it is closed, a step is one forward pass of `net`, at one or several widths, one backward
    pass and `step()`; maps can be read from outside only right after `settle`.

    Several processes must run the same widths. The maps' gradients are averaged here, the others'
    by whatever trains in several processes, such as DDP.

    Args:
        groups: parameter groups as `torch.optim.SGD` takes them, all maps in one of them.
        max_norm: the largest L2 norm of all gradients together; None: they are not clipped.
        settings: `lr`, `momentum`, `weight_decay` and `nesterov`, as of `torch.optim.SGD`.
    """

    def __init__(
        self,
        net: PruningNet,
        groups: Iterable[dict[str, Any]],
        *,
        max_norm: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(groups, fused=True, **settings)
        self.max_norm = max_norm
        self.generators = [g for g in net.generators if isinstance(g, WeightGenerator)]
        maps = {id(generator.map) for generator in self.generators}
        (self.group_of_maps,) = (  # one: all maps move by the same matrix
            number
            for number, group in enumerate(self.param_groups)
            if maps & {id(parameter) for parameter in group["params"]}
        )
        self.used: list[_Use] = []
        self.motion = np.eye(2)  # F
        for generator in self.generators:
            generator.map.requires_grad_(False)
            generator.lent = _LentMap(self, generator.map)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Clip all gradients, and move all parameters by one step."""
        assert closure is None, "a step has its backward pass behind it"
        uses, self.used = self.used, []
        self._average(uses)
        scale = self._clip(uses)
        super().step()
        first, second = self._advance()
        for use in uses:
            for tensor, factor in ((use.map, first), (self.momentum(use.map), second)):
                add_outer(tensor, use.where, use.gradient, use.feature * (factor * scale))
        if np.linalg.cond(self.motion) > WORST_CONDITION:
            self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Write the true weights and momenta into the maps and the state."""
        (p_a, p_b), (v_a, v_b) = self.motion.tolist()
        for generator in self.generators:
            a, b = generator.map, self.momentum(generator.map)
            if p_a != 1:
                a.mul_(p_a)
            p = a.add_(b, alpha=p_b)
            v = b.mul_(v_b - v_a * p_b / p_a)
            if v_a:
                v.add_(p, alpha=v_a / p_a)
        self.motion = np.eye(2)

    def close(self) -> None:
        """Settle, and give the maps back to autograd; no step can follow."""
        self.settle()
        for generator in self.generators:
            generator.map.requires_grad_(True)
            generator.lent = None
        self.state.clear()

    def momentum(self, tensor: Tensor) -> Tensor:
        """What is kept beside a map; made when first asked for, where the map is by then."""
        state = self.state[tensor]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(tensor)
        result: Tensor = state["momentum_buffer"]
        return result

    def _average(self, uses: list["_Use"]) -> None:
        """Over processes: of weights' gradients, which are far smaller than the maps'."""
        if world() == 1:
            return
        flat = torch.cat([use.gradient.flatten() for use in uses])
        average = sum_over_ranks(flat) / world()
        for use, part in zip(uses, average.split([u.gradient.numel() for u in uses]), strict=True):
            use.gradient.copy_(part.view_as(use.gradient))

    def _clip(self, uses: list["_Use"]) -> Tensor | float:
        """Clip the other parameters' gradients; return what the maps' are to be scaled by.

        As `clip_grad_norm_` does.
        """
        if self.max_norm is None:
            return 1.0
        gradients = [
            parameter.grad
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        of_maps: dict[int, list[_Use]] = {}
        for use in uses:
            of_maps.setdefault(id(use.map), []).append(use)
        norms = [_norm(of_map) for of_map in of_maps.values()]
        norms += torch._foreach_norm(gradients)
        total = torch.stack(norms).norm()
        scale: Tensor = (self.max_norm / (total + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, scale)
        return scale

    def _advance(self) -> tuple[float, float]:
        """Move F on by a step; return by how much a gradient then moves a and b."""
        group = self.param_groups[self.group_of_maps]
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        # d = g + decay p; v' = momentum v + d; p' = p - lr v'; Nesterov: p - lr (d + momentum v')
        towards_d, towards_v = (1.0, momentum) if group["nesterov"] else (0.0, 1.0)
        along = -lr * (towards_d + towards_v)
        step = np.array([[1 + along * decay, -lr * towards_v * momentum], [decay, momentum]])
        gain = np.array([along, 1.0])
        if not momentum:  # v is never read, and may stay as it is
            step[1], gain[1] = (0.0, 1.0), 0.0
        self.motion = step @ self.motion
        first, second = np.linalg.solve(self.motion, gain).tolist()
        return first, second


@dataclass(frozen=True)
class _Use:
    """One backward pass through a map: at `where` its gradient is that of the weight x feature."""

    map: Tensor
    where: tuple[Index, Index]
    gradient: Tensor
    feature: Tensor


def _norm(uses: list[_Use]) -> Tensor:
    """The L2 norm of a map's gradient, which is the sum of an outer product of each of its uses.

    That of one is the product of its factors' norms. Two share an inner product where their crops
    overlap: that of the features times that of the weights' gradients there.
    """
    norms: list[Tensor] = [use.gradient.norm() * use.feature.norm() for use in uses]
    if len(uses) == 1:
        return norms[0]
    square: Tensor = torch.stack(norms).square().sum()
    for one, other in combinations(uses, 2):
        places = zip(*map(shared, one.where, other.where), strict=True)
        here, there = (
            crop(use.gradient, place) for use, place in zip((one, other), places, strict=True)
        )
        square += 2 * (one.feature @ other.feature) * (here * there).sum()
    return square.clamp(min=0).sqrt()  # where they cancel, rounding could leave less


class _LentMap:
    def __init__(self, optimizer: CroppedSGD, tensor: Tensor) -> None:
        self.optimizer = optimizer
        self.map = tensor

    def weight(self, feature: Tensor, where: tuple[Index, Index]) -> Tensor:
        """The weight that the map's true values give."""
        if torch.is_grad_enabled() and not feature.requires_grad:  # else nobody asks for backward
            feature = feature.detach().requires_grad_()
        result: Tensor = _Product.apply(feature, self, where)
        return result

    def parts(self, where: tuple[Index, Index]) -> list[tuple[Tensor, float]]:
        """Crops whose weighted sum is the true map's."""
        p_a, p_b = self.optimizer.motion[0].tolist()
        parts = [(self.map, p_a)]
        if p_b:
            parts.append((self.optimizer.momentum(self.map), p_b))
        return [(crop(tensor, where), share) for tensor, share in parts]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, lent: _LentMap, where: tuple[Index, Index]) -> Tensor:
        ctx.save_for_backward(feature)
        ctx.lent, ctx.where = lent, where
        first, *others = (product(part, feature * share) for part, share in lent.parts(where))
        return sum(others, start=first)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (feature,) = ctx.saved_tensors
        lent, gradient = ctx.lent, gradient.contiguous()
        lent.optimizer.used.append(_Use(lent.map, ctx.where, gradient, feature))
        first, *others = (gathered(part, gradient) * share for part, share in lent.parts(ctx.where))
        return sum(others, start=first), None, None
