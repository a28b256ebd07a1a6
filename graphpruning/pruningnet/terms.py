"""What a PruningNet that inherits from a trained network has beside the layers' weights."""

import torch
from torch import Tensor, nn

from graphpruning.network.graph import ChannelGraph, UnitMask, cut_direct, direct_tensor, kept
from graphpruning.network.importance import Reordering
from graphpruning.network.subnet import LayerWeights


class OtherTerms(nn.Module):
    """Terms of a network that are no layer's: cropped to the widths, but else the same at all.

    Scales and shifts of normalisations, and parameters that scale channels, are learnt; constants
    stay. They are made with the values in `graph.module`. Each is stored with one dimension, so
    that it counts as a norm (see `Recipe.decay_norms`).
    """

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__()
        self.graph = graph
        self.channels = {
            f"{name}.{part}": channels
            for name, channels in graph.norms.items()
            for part in ("weight", "bias")
            if isinstance(getattr(graph.module.get_submodule(name), part), Tensor)
        }
        self.channels |= graph.scales | graph.constants
        first = {name: direct_tensor(graph.module, name).detach() for name in self.channels}
        self.shapes = {name: value.shape for name, value in first.items()}
        self.values = nn.ParameterList(
            nn.Parameter(value.flatten().clone(), requires_grad=name not in graph.constants)
            for name, value in first.items()
        )

    def forward(self, mask: UnitMask) -> LayerWeights:
        """Return (scale, shift) of each normalisation, and each other term, of units in `mask`."""
        terms = {
            name: cut_direct(value.view(self.shapes[name]), kept(channels, mask))
            for (name, channels), value in zip(self.channels.items(), self.values, strict=True)
        }
        norms = [name for name in self.graph.norms if f"{name}.weight" in terms]
        others = self.graph.scales | self.graph.constants
        return {
            **{name: (terms[f"{name}.weight"], terms.get(f"{name}.bias")) for name in norms},
            **{name: (terms[name], None) for name in others},
        }

    @torch.no_grad()
    def start_from(self, base: nn.Module, reordering: Reordering) -> None:
        """Take the values that `base` has, its channels in the new order."""
        for (name, channels), value in zip(self.channels.items(), self.values, strict=True):
            found = cut_direct(direct_tensor(base, name), reordering.sources(channels))
            value.copy_(found.flatten())
