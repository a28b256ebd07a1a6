"""Tables 2 and 2b: accuracy with generated weights, and what they are conditioned on."""

import math

from paper import measures
from paper.reader.results import Results
from paper.statistics import Estimate, disattenuated, mean
from paper.table_formats import NOWHERE, Cells, Table, made, spread
from paper.wording import counted, fixed, interval, joined, number, plus_minus


def generated_weights(results: Results) -> Table:
    """Table 2: accuracy with generated weights, and whether it ranks candidates."""
    rows = []
    for model in results.models:
        reliability = measures.reliability(results, model)
        for conditioning in results.analysed:
            rows.append(_generated(results, model, conditioning, reliability))
    notes = ["n: candidates within budgets that were also trained from scratch."]
    return made("table2_generated_weights", rows, *notes, *_trainings(results))


def _generated(
    results: Results, model: str, conditioning: str, reliability: float
) -> tuple[Cells, Cells]:
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
    corrected = NOWHERE if math.isnan(reliability) else disattenuated(tau, reliability)
    trained = results.generated[model, results.seeds[0]].trained * len(results.analysed_budgets)
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
    csv |= spread("tau", tau, 4) | spread("tau_corrected", corrected, 4)
    csv |= {"reliability": fixed(reliability, 4), "tau_candidates": str(trained)}
    shown |= {"τ": interval(tau, 2), "τ corrected": interval(corrected, 2), "n": str(trained)}
    return csv, shown


def _trainings(results: Results) -> list[str]:
    """How noisy the trainings are that tau is judged by."""
    said = []
    for model in results.models:
        trainings = results.generated[model, results.seeds[0]].trainings
        reliability = measures.reliability(results, model)
        if not math.isnan(reliability):
            said.append(
                f"Reliability of the mean of {counted(trainings, 'training')} of {model}: "
                f"{number(reliability, 2)}."
            )
        elif trainings > 1:
            between = interval(measures.agreement(results, model), 2)
            said.append(
                f"Two trainings of {model} agree with a tau of {between}, which does not tell how "
                "reliable they are, so its tau is not corrected."
            )
        else:
            said.append(f"{model} was trained once at any widths, so its tau is not corrected.")
    return said


def conditioning(results: Results) -> Table:
    """Table 2b: whether features tell widths, and whether right widths give better weights."""
    rows = [
        _conditioned(results, model, name, seed)
        for model in results.models
        for name in results.analysed
        for seed in results.seeds
    ]
    return made("table2_conditioning", rows, *collapses(results))


def _conditioned(results: Results, model: str, conditioning: str, seed: int) -> tuple[Cells, Cells]:
    trained, untrained = (
        measures.far_probe(results, model, conditioning, network, seed)
        for network in ("trained", "untrained")
    )
    features, weights = (
        measures.variation(results, model, conditioning, seed, f"{what}_variation")
        for what in ("feature", "weight")
    )
    helps: Estimate = measures.right_minus_shuffled_of(results, model, conditioning, seed)
    over_constant = measures.minus_constant(results, model, conditioning, seed)
    csv = {
        "model": model,
        "conditioning": conditioning,
        "seed": str(seed),
        "probe_r2": fixed(trained, 4),
        "probe_r2_untrained": fixed(untrained, 4),
        "feature_variation": fixed(features, 6),
        "weight_variation": fixed(weights, 6),
        "right_minus_shuffled": fixed(helps.value, 4),
        "low": fixed(helps.low, 4),
        "high": fixed(helps.high, 4),
        "top1_minus_constant": fixed(over_constant, 4),
    }
    shown = {
        "Model": model,
        "Conditioning": results.conditionings[conditioning].label,
        "Seed": str(seed),
        "Probe R²": number(trained, 2),
        "Untrained": number(untrained, 2),
        "Features vary (%)": number(100 * features, 1),
        "Weights vary (%)": number(100 * weights, 1),
        "Right − shuffled": interval(helps, 2, sign=True),
        "Minus constant": number(over_constant, 2, sign=True),
    }
    return csv, shown


def collapses(results: Results) -> list[str]:
    """One line that names every aggregator that died in training; none where all live."""
    found = [
        f"{results.conditionings[name].label} of {model}, seed {seed} (features vary by "
        f"{number(100 * measures.variation(results, model, name, seed, 'feature_variation'), 1)} "
        f"%, weights by "
        f"{number(100 * measures.variation(results, model, name, seed, 'weight_variation'), 1)} %; "
        f"probe R² {number(measures.far_probe(results, model, name, 'trained', seed), 2)}, "
        f"untrained {number(measures.far_probe(results, model, name, 'untrained', seed), 2)})"
        for model, name, seed in measures.all_collapsed(results)
    ]
    if not found:
        return []
    return [
        f"Collapsed in training, so that features or weights hardly follow the widths any more: "
        f"{joined(found)}."
    ]
