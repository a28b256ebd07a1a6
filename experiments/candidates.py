"""What judges a candidate: PruningNets and the images that decide."""

from collections.abc import Sequence

import torch

from experiments.inputs import fresh, network, preprocessing, split
from experiments.stage import Context
from graphpruning.network.graph import ChannelGraph
from graphpruning.pruningnet.pruningnet import PruningNet
from graphpruning.training.checkpoint import load_weights
from graphpruning.training.data import Batch, Images, prepared


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
    """Images for recalibration, and the search split that candidates are judged on."""
    calibration = split(context, "calibration")[: context.study.data.recalibration_images]
    chosen = (images.select(calibration), images.select(split(context, "search")))
    first, second = (prepared(part.to(device), preprocessing(context), 500) for part in chosen)
    return first, second
