"""Every row of the table of methods runs, within its evaluations and the budget."""

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import get_args

import pytest
import torch
from torch import nn

from graphpruning import methods
from graphpruning.common.errors import UserError
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
from graphpruning.pruningnet.conditionings import BASE_LINE, CONDITIONINGS
from graphpruning.search.ddpg import DDPGSettings
from graphpruning.search.evolution import EvolutionSettings
from graphpruning.search.history import Journal


def answer(widths):
    return float(sum(width**0.5 for width in widths.values()))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def searched(name, space, budget, path, evaluations=9, seed=0):
    def features(widths):
        return torch.full((len(space.graph.layers), 2), float(sum(widths.values())))

    row = methods.method(name)
    count = methods.evaluations_of(row, evaluations)
    journal = Journal(answer, space, budget, count, path, {"seed": seed})
    task = methods.Task(
        row,
        space,
        budget,
        journal,
        torch.Generator().manual_seed(seed),
        methods.SearchSettings.scaled(evaluations),
        features,
        build("resnet8", 10, in_channels=1),
    )
    methods.run(task)
    return journal.history.candidates


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_searches(tmp_path, space, half, name):
    found = searched(name, space, half, tmp_path / "one.jsonl")
    assert len(found) == (1 if name in ("uniform", "group-norm") else 9)
    assert all(0.98 * half <= candidate.macs <= half for candidate in found)
    torch.manual_seed(0)
    again = searched(name, space, half, tmp_path / "two.jsonl")
    assert [c.widths for c in found] == [c.widths for c in again]


def test_the_example_of_a_method_of_ones_own_searches(tmp_path, space, half, monkeypatch):
    """It learns from answers: its later candidates are better than random search's."""
    page = (Path(__file__).parents[2] / "docs/studies.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    monkeypatch.setattr(methods, "SEARCHERS", dict(methods.SEARCHERS))
    exec(example, vars(methods).copy())
    assert methods.listed_under("climb") == "graph"
    late = {"climb": [], "random": []}
    for name, seed in product(late, range(5)):
        path = tmp_path / f"{name}{seed}.jsonl"
        found = searched(name, space, half, path, evaluations=60, seed=seed)
        assert len(found) == 60
        assert all(0.98 * half <= candidate.macs <= half for candidate in found)
        late[name].append(fmean(candidate.accuracy for candidate in found[30:]))
    assert min(late["climb"]) > max(late["random"])


def test_a_method_stands_under_its_source_or_is_named_like_it():
    named = ("graphpruning", "no-edges", "amc", "gat")
    assert {name: methods.listed_under(name) for name in named} == {
        "graphpruning": "graph",
        "no-edges": "none",
        "amc": "base",
        "gat": "own",
    }
    methods.check_lists({"graph": ("graphpruning",), "own": ("gat",)})
    with pytest.raises(UserError, match="gat stands under 'graph'; its place is 'own'"):
        methods.check_lists({"graph": ("graphpruning", "gat")})


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_row_names_what_there_is(name):
    row = methods.method(name)
    assert row.source in ("base", *CONDITIONINGS)
    assert row.searcher in methods.SEARCHERS
    assert row.state in ("aggregated", "hand-crafted", "nothing")
    assert row.kind in ("ours", "baseline", "ablation", "beyond")
    assert row.initial in (None, *get_args(methods.Initial))
    assert row.state != "aggregated" or row.source != "base"  # only a PruningNet has features


def test_rows_for_tables_are_plain_data():
    """With the line of the source, by which figures tell methods of one source."""
    found = methods.rows(list(methods.METHODS))
    assert json.loads(json.dumps(found)).keys() == methods.METHODS.keys()
    assert found["gat"]["stage"] == "search_own" and found["amc"]["stage"] == "search_base"
    assert found["gat"]["line"] == CONDITIONINGS["gat"].line
    assert found["amc"]["line"] == BASE_LINE
    assert found["generated"]["initial"] == "generated" and found["amc"]["initial"] is None
    assert [name for name, row in found.items() if row["distilled"]] == ["graphpruning-plus"]


def test_what_goes_beyond_the_paper_is_off_in_every_other_row():
    beyond = [name for name, row in methods.METHODS.items() if row.kind == "beyond"]
    assert beyond == ["graphpruning-plus", "predictor"]
    assert [methods.listed_under(name) for name in beyond] == ["own", "graph"]
    ours, plus = methods.METHODS["graphpruning"], methods.METHODS["graphpruning-plus"]
    assert (plus.state, plus.searcher) == (ours.state, ours.searcher)
    for name, row in CONDITIONINGS.items():
        switches = {row.sandwich, row.distil, row.inherit}
        assert switches == {name == "graphpruning-plus"}
    assert CONDITIONINGS[plus.source].options == CONDITIONINGS[ours.source].options


@pytest.mark.parametrize(
    ("name", "says"),
    [("graphpruning", "aggregated states need a PruningNet"), ("group-norm", "there is none")],
)
def test_a_searcher_says_what_it_lacks(tmp_path, space, half, name, says):
    journal = Journal(answer, space, half, 3, tmp_path / "journal.jsonl", {})
    settings = methods.SearchSettings()
    task = methods.Task(methods.method(name), space, half, journal, torch.Generator(), settings)
    with pytest.raises(ValueError, match=says):
        methods.run(task)


def test_settings_are_the_published_ones_where_the_search_is_as_long():
    assert methods.SearchSettings.scaled(400).ddpg == DDPGSettings()
    assert methods.SearchSettings.scaled(800).ddpg == DDPGSettings()  # as many as AMC's code has
    assert methods.SearchSettings.scaled(1000).evolution == EvolutionSettings()


@pytest.mark.parametrize("evaluations", [2, 3, 5, 25, 100, 1000])
def test_short_searches_explore_before_they_settle(evaluations):
    settings = methods.SearchSettings.scaled(evaluations)
    assert 1 <= settings.agent.warmup_episodes <= max(1, evaluations // 4)
    assert 1 <= settings.ddpg.warmup_episodes < evaluations
    steps = evaluations - settings.ddpg.warmup_episodes
    assert settings.ddpg.noise_decay**steps <= 0.1 + 1e-9
    assert settings.evolution.parents >= 2
    assert 1 <= settings.predictor.warmup <= max(1, evaluations // 4)
    assert settings.evolution.population <= max(2, evaluations // 4)


def test_amcs_ddpg_sees_amcs_ten_features_and_no_others(tmp_path, space, half):
    journal = Journal(answer, space, half, 3, tmp_path / "journal.jsonl", {})
    row = replace(methods.method("amc"), state="aggregated")
    settings = methods.SearchSettings.scaled(3)
    with pytest.raises(ValueError, match="sees AMC's ten features"):
        methods.run(methods.Task(row, space, half, journal, torch.Generator(), settings))


def test_ablations_search_by_the_agent_that_graphpruning_has():
    """But for the agent that never learns, and AMC's row."""
    searchers = {name: row.searcher for name, row in methods.METHODS.items()}
    ours = [row.searcher for row in methods.METHODS.values() if row.kind in ("ours", "ablation")]
    assert set(ours) == {"agent", "frozen"}
    assert searchers["hand-crafted"] == searchers["graphpruning"] == "agent"
    assert searchers["frozen"] == "frozen" and searchers["amc"] == "ddpg"


@pytest.mark.parametrize("name", ["amc", "metapruning", "random"])
def test_unfilled_searches_only_stay_within_the_budget(tmp_path, space, half, name):
    """As AMC and MetaPruning were published; the same searches fill it where they are to."""
    free = SearchSpace(space.graph, filled=0)
    found = searched(name, free, half, tmp_path / "free.jsonl", evaluations=40)
    assert all(candidate.macs <= half for candidate in found)
    assert any(candidate.macs < 0.9 * half for candidate in found)


@pytest.mark.parametrize("name", ["graphpruning", "amc", "uniform", "random", "predictor"])
def test_a_network_without_widths_to_decide_is_refused(name):
    narrow = nn.Sequential(
        nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3)
    )
    space = SearchSpace(trace(narrow, (1, 8, 8)))
    with pytest.raises(UserError, match="no layer's width can be pruned"):
        methods.require(methods.method(name), space, narrow)
