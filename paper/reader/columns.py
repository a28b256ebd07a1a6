"""The columns of the CSV files that the stages of a study leave behind."""

from paper.reader.reading import (
    CORRELATION,
    COUNT,
    LABEL,
    MAGNITUDE,
    PERCENT,
    POSITIVE,
    Columns,
    Number,
    OneOf,
)

NETWORKS = ("trained", "untrained")
PAIRS = ("in_block", "other_block")

CHANNELS: Columns = {
    "network": OneOf(NETWORKS),
    "pair": OneOf(PAIRS),
    "former": LABEL,
    "deeper": LABEL,
    "channel": COUNT,
    "best_match": CORRELATION,
    "r2": Number(-1e30, 1 + 1e-6),
}
TRAINING: Columns = {
    "epoch": POSITIVE,
    "lr": MAGNITUDE,
    "train_loss": MAGNITUDE,
    "search_top1_full": PERCENT,
    "search_top1_half": PERCENT,
    "search_top1_quarter": PERCENT,
}
BASE_TRAINING: Columns = {
    "epoch": POSITIVE,
    "lr": MAGNITUDE,
    "train_loss": MAGNITUDE,
    "train_top1": PERCENT,
    "search_top1": PERCENT,
}
CANDIDATES: Columns = {
    "candidate": COUNT,
    "macs": POSITIVE,
    "conditioning": LABEL,
    "top1_generated": PERCENT,
    "top1_trained": Number(0, 100, optional=True),  # only some candidates are trained
}
INFLUENCE: Columns = {
    "conditioning": LABEL,
    "changed": LABEL,
    "observed": LABEL,
    "distance": POSITIVE,
    "movement": MAGNITUDE,
}
HISTORY: Columns = {
    "evaluation": POSITIVE,
    "macs": POSITIVE,
    "top1": PERCENT,
    "best": PERCENT,
}
FINAL_TRAINING: Columns = {
    "epoch": POSITIVE,
    "lr": MAGNITUDE,
    "train_loss": MAGNITUDE,
    "train_top1": PERCENT,
}
