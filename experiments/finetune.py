"""Train the found networks by the study's recipe, and read the test set, once."""

from pathlib import Path
from typing import Any

from torch import nn

from experiments.inputs import (
    fresh,
    network,
    preprocessing,
    recipe,
    seeded,
    split,
    test_images,
    training_images,
    write_csv,
)
from experiments.stage import Context, Stage
from experiments.study import seed_list
from graphpruning.architecture import save_architecture
from graphpruning.files import read_json, write_json
from graphpruning.network.graph import Widths, trace
from graphpruning.network.surgery import narrow
from graphpruning.network.zoo import build, initialise
from graphpruning.training.checkpoint import Checkpoint, load_weights
from graphpruning.training.data import ImageSet, prepared
from graphpruning.training.loop import Fabric, Fitted, evaluate, fit, make_fabric
