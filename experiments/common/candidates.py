"""What judges the study's candidates: the weights of earlier stages, and the images that decide."""

from lightning_fabric import Fabric

from experiments.common.inputs import FullNetwork, base_network, split
from experiments.common.stage import Context
from graphpruning.judging import Evidence, Judge
from graphpruning.pruningnet.pruningnet import PruningNet
from graphpruning.training.checkpoint import load_weights
from graphpruning.training.images import Images


def pruningnet(context: Context, full: FullNetwork, conditioning: str) -> PruningNet:
    """The replicate's trained PruningNet."""
    net = PruningNet(full.graph, conditioning)
    load_weights(context.weights_of(conditioning), net)
    return net.eval()


def evidence(
    context: Context, images: Images, fabric: Fabric, top: int = 1, shuffled: bool = False
) -> Evidence:
    """Images for recalibration, and the search split that candidates are judged on."""
    data = context.study.data
    calibration = split(context, "calibration")[: data.recalibration_images]
    return Evidence.of(
        images.select(calibration),
        images.select(split(context, "search")),
        data.preprocessing,
        fabric,
        data.seed,
        top,
        shuffled,
    )


def judge_by_base(
    context: Context,
    full: FullNetwork,
    images: Images,
    evidence: Evidence,
    keep_statistics: bool = False,
) -> Judge:
    """Judge with weights cut out of the replicate's base and fitted again."""
    calibration = images.select(split(context, "calibration"))
    data = context.study.data
    return Judge.by_base(
        base_network(context, full),
        full.graph,
        calibration,
        data.preprocessing,
        context.study.reconstruction,
        data.seed,
        evidence,
        keep_statistics,
    )
