"""Tables 1 and 2: what layers say of each other, and accuracy with generated weights."""

from paper import measures
from paper.captions import origin
from paper.reader.results import Results
from paper.statistics import mean
from paper.table_formats import Table, made, spread
from paper.wording import interval, plus_minus


def correlation(results: Results) -> Table:
    """Table 1: how much of a deeper channel the former layer explains."""
    rows = []
    names = [network.model for network in results.compared]
    for network in results.compared:
        for kind in measures.kinds(network):
            state, pair = kind
            frame = measures.channels(network, kind)[0]
            middle = measures.median(network, kind)
            match = measures.median(network, kind, "best_match")
            csv = {
                "study": network.study,
                "model": network.model,
                "network": state,
                "pair": pair,
                "seeds": str(len(network.base)),
                "layers": str(frame["deeper"].nunique()),
                "channels": str(len(frame)),
            }
            shown = {
                "Model": network.model if names.count(network.model) == 1 else network.label,
                "Network": state,
                "Layers of": measures.PAIRS[pair],
                "Channels": f"{len(frame):,}",
            }
            for threshold in measures.THRESHOLDS:
                share = measures.share_over(network, kind, threshold)
                csv |= spread(f"share_over_{threshold}", share, 4)
                shown[f"R² > {threshold} (%)"] = interval(share.scaled(100), 0)
            csv |= spread("r2_median", middle, 4) | spread("best_match_median", match, 4)
            shown |= {"Median R²": interval(middle, 2), "Best match": interval(match, 2)}
            rows.append((csv, shown))
    notes = [f"{network.label}: {origin(network)}." for network in results.networks]
    return made("table1_correlation", rows, *notes)


def generated_weights(results: Results) -> Table:
    """Table 2: accuracy with generated weights, and whether it ranks candidates."""
    rows = []
    for model in results.models:
        for conditioning in results.analysed:
            nets = [results.pruningnet[model, conditioning, seed] for seed in results.seeds]
            before, full, quarter = (
                mean(values)
                for values in (
                    [net.search_top1_full_before_recalibration for net in nets],
                    [net.search_top1_full for net in nets],
                    [net.search_top1_quarter for net in nets],
                )
            )
            tau = measures.rank_correlation(results, model, conditioning)
            trained = measures.trained(results, model, conditioning, results.seeds[0])
            csv = {
                "model": model,
                "conditioning": conditioning,
                "seeds": str(len(nets)),
                "generator_params": str(nets[0].params),
                **spread("top1_full_before_recalibration", before, 3),
                **spread("top1_full", full, 3),
                **spread("top1_quarter_width", quarter, 3),
            }
            shown = {
                "Model": model,
                "Conditioning": results.conditionings[conditioning].label,
                "Before": plus_minus(before, 1),
                "Full": plus_minus(full, 1),
                "¼ width": plus_minus(quarter, 1),
            }
            sizes = measures.quarters(results, model, conditioning, "top1_generated")
            for position, size in enumerate(sizes, 1):
                csv |= spread(f"top1_macs_quarter{position}", size, 3)
                shown[f"MACs {position}/4"] = plus_minus(size, 1)
            csv |= spread("tau", tau, 4) | {"tau_candidates": str(len(trained))}
            shown |= {"τ": interval(tau, 2), "n": str(len(trained))}
            rows.append((csv, shown))
    return made(
        "table2_generated_weights", rows, "n: candidates that were also trained from scratch."
    )
