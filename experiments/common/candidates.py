"""What judges a candidate: PruningNets and the images that decide."""

from collections.abc import Sequence

import torch

from experiments.common.inputs import fresh, network, preprocessing, split
from experiments.common.stage import Context
from graphpruning.network.graph import ChannelGraph
from graphpruning.pruningnet.pruningnet import PruningNet
from graphpruning.training.checkpoint import load_weights
from graphpruning.training.images import Batch, Images, prepared

BATCH = 250
"""Images of an evaluation batch: of small images, what the processor's cache can hold."""


def pruningnet(
    context: Context, images: Images, conditioning: str
) -> tuple[PruningNet, ChannelGraph]:
    """A trained PruningNet and the graph of the network it generates weights for."""
    _, graph = fresh(network(context, images), images, 0)
    net = PruningNet(graph, conditioning)
    folder = context.weights / context.items["model"]
    load_weights(folder / f"pruningnet-{conditioning}.safetensors", net)
    return net.eval(), graph


def search_split(
    context: Context, images: Images, device: torch.device
) -> tuple[Sequence[Batch], Sequence[Batch]]:
    """Images for recalibration, and the search split that candidates are judged on.

    Those for recalibration are augmented, once, as those were on which the weights were trained.
    """
    data, how = context.study.data, preprocessing(context)
    chosen = images.select(split(context, "calibration")[: data.recalibration_images])
    generator = torch.Generator().manual_seed(data.seed)
    parts = (chosen.augmented(how, generator), images.select(split(context, "search")))
    calibration, search = (prepared(part.to(device), how, BATCH) for part in parts)
    return calibration, search
