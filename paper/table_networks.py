"""Table 1: how much of a deeper layer's channels the former layer explains."""

from paper import representation
from paper.captions import origin
from paper.reader.results import Network, Results
from paper.table_formats import NOWHERE, Cells, Table, made, spread
from paper.wording import ABSENT, interval


def correlation(results: Results) -> Table:
    """Table 1: how much of a deeper channel the former layer explains."""
    rows = []
    names = [network.model for network in results.compared]
    for network in results.compared:
        shown_as = network.model if names.count(network.model) == 1 else network.label
        for output in representation.outputs(network):
            for kind in (*representation.kinds(network), *representation.borders(network)):
                rows.append(_explained(network, shown_as, kind, output))
    notes = [f"{network.label}: {origin(network)}." for network in results.networks]
    return made("table1_correlation", rows, *notes)


def _explained(
    network: Network, shown_as: str, kind: representation.Kind, output: str
) -> tuple[Cells, Cells]:
    state, pair = kind
    frames = representation.channels(network, kind, output)
    frame = frames[0]
    middle = representation.median(network, kind, output)
    match = representation.median(network, kind, output, "match")
    csv = {
        "study": network.study,
        "model": network.model,
        "network": state,
        "pair": pair,
        "output": output,
        "seeds": str(len(frames)),
        "layers": str(frame["deeper"].nunique()),
        "channels": str(len(frame)),
    }
    shown = {
        "Model": shown_as,
        "Network": state,
        "Layers of": representation.PAIRS[pair],
        "Output": representation.OUTPUTS[output],
        "Channels": f"{len(frame):,}",
    }
    thresholds = representation.THRESHOLDS
    shares = representation.shares_over(network, kind, thresholds, output)
    for threshold, share in zip(thresholds, shares, strict=True):
        csv |= spread(f"share_over_{threshold}", share, 4)
        shown[f"R² > {threshold} (%)"] = interval(share.scaled(100), 0)
    own = output == "own"  # the best match is that of the layers' own outputs
    csv |= spread("r2_median", middle, 4)
    csv |= spread("best_match_median", match if own else NOWHERE, 4)
    shown |= {"Median R²": interval(middle, 2), "Best match": interval(match, 2) if own else ABSENT}
    return csv, shown
