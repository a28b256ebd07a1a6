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
    Text,
)

NETWORKS = ("trained", "untrained")
PAIRS = ("in_block", "other_block")

_MATCH = Number(0, 1 + 1e-6, optional=True)
_R2 = Number(-1e30, 1 + 1e-6)
_OPTIONAL_R2 = Number(-1e30, 1 + 1e-6, optional=True)

CHANNELS: Columns = {
    "network": OneOf(NETWORKS),
    "former": LABEL,
    "deeper": LABEL,
    "channel": COUNT,
    "controls": COUNT,  # what begins with control is the mean over so many, empty without any
    "best_match": CORRELATION,
    "control_match": _MATCH,
    "r2": _R2,
    "control_r2": _OPTIONAL_R2,
    "r2_activated": _OPTIONAL_R2,  # empty in results from before it was judged
    "control_r2_activated": _OPTIONAL_R2,
}
BORDERS: Columns = {
    "network": OneOf(NETWORKS),
    "former": LABEL,
    "deeper": LABEL,
    "channel": COUNT,
    "best_match": CORRELATION,
    "r2": _R2,
    "r2_activated": _R2,
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
_OPTIONAL_PERCENT = Number(0, 100, optional=True)
CANDIDATES: Columns = {
    "candidate": COUNT,
    "budget": LABEL,
    "macs": POSITIVE,
    "conditioning": LABEL,
    "top1_generated": PERCENT,
    "top1_shuffled": _OPTIONAL_PERCENT,  # of candidates from the whole space
}
TRAINED: Columns = {
    "candidate": COUNT,
    "training": COUNT,
    "top1": PERCENT,
}
PROBES: Columns = {
    "conditioning": LABEL,
    "network": OneOf(NETWORKS),
    "layer": LABEL,
    "distance": COUNT,
    "widths": POSITIVE,
    "r2": _R2,
}
DIAGNOSTICS: Columns = {
    "conditioning": LABEL,
    "network": OneOf(NETWORKS),
    "feature_variation": MAGNITUDE,
    "weight_variation": MAGNITUDE,
}
HISTORY: Columns = {
    "evaluation": POSITIVE,
    "macs": POSITIVE,
    "top1": PERCENT,
    "best": PERCENT,
    "widths": Text(1, 100_000),
}
FINAL_TRAINING: Columns = {
    "epoch": POSITIVE,
    "lr": MAGNITUDE,
    "train_loss": MAGNITUDE,
    "train_top1": PERCENT,
}
FINAL_TRAININGS: Columns = {
    "kind": OneOf(("main", "second")),
    "training": COUNT,
    "initial": LABEL,
    "test_top1": PERCENT,
    "test_top5": PERCENT,
}
