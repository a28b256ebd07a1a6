"""Train a PruningNet as every study does; one conditioning a stage."""

from experiments import train_pruningnet as of_studies
from experiments.channel_bench.study import STUDY_FILE, parse
from experiments.common.stage import Context, Stage


def train_pruningnet(context: Context) -> None:
    """Write weights, curve and accuracies."""
    of_studies.train_pruningnet(context)


STAGE = Stage(
    train_pruningnet,
    folder="pruningnet",
    sections=of_studies.STAGE.sections,
    items=of_studies.STAGE.items,
    study_file=STUDY_FILE,
    parse=parse,
)

if __name__ == "__main__":
    STAGE.main()
