"""Every row of the table of methods runs, within its evaluations and the budget."""

import pytest
import torch

from graphpruning import methods
from graphpruning.common.errors import UserError
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
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
    methods.run(
        row,
        space,
        budget,
        journal,
        torch.Generator().manual_seed(seed),
        features,
        methods.SearchSettings.scaled(evaluations),
        build("resnet8", 10, in_channels=1),
    )
    return journal.history.candidates


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_searches(tmp_path, space, half, name):
    found = searched(name, space, half, tmp_path / "one.jsonl")
    assert len(found) == (1 if name in ("uniform", "group-norm") else 9)
    assert all(0.98 * half <= candidate.macs <= half for candidate in found)
    torch.manual_seed(0)
    again = searched(name, space, half, tmp_path / "two.jsonl")
    assert [c.widths for c in found] == [c.widths for c in again]


def test_a_method_stands_under_its_source_or_is_named_like_it():
    assert {name: methods.place(name) for name in ("graphpruning", "no-edges", "amc", "gat")} == {
        "graphpruning": "graph",
        "no-edges": "none",
        "amc": "base",
        "gat": "ablations",
    }
    with pytest.raises(UserError, match="gat stands under 'graph'; its place is 'ablations'"):
        methods.check_places({"graph": ("graphpruning", "gat")})


def test_aggregated_states_need_features(tmp_path, space, half):
    row = methods.method("graphpruning")
    journal = Journal(answer, space, half, 3, tmp_path / "journal.jsonl", {})
    with pytest.raises(ValueError, match="need a PruningNet"):
        methods.run(
            row, space, half, journal, torch.Generator(), None, methods.SearchSettings(), None
        )


def test_settings_are_the_published_ones_where_the_search_is_as_long():
    assert methods.SearchSettings.scaled(400).agent == DDPGSettings()
    assert methods.SearchSettings.scaled(1000).evolution == EvolutionSettings()


@pytest.mark.parametrize("evaluations", [2, 5, 25, 100])
def test_short_searches_explore_before_they_settle(evaluations):
    settings = methods.SearchSettings.scaled(evaluations)
    assert settings.agent.warmup_episodes < evaluations
    steps = evaluations - settings.agent.warmup_episodes
    assert settings.agent.noise_decay**steps <= 0.1 + 1e-9
    assert settings.evolution.parents >= 2
    assert settings.evolution.population <= max(2, evaluations // 4)


@pytest.mark.parametrize("name", ["amc", "metapruning", "random"])
def test_unfilled_searches_only_stay_within_the_budget(tmp_path, space, half, name):
    """As AMC and MetaPruning were published; the same searches fill it where they are to."""
    free = SearchSpace(space.graph, filled=0)
    found = searched(name, free, half, tmp_path / "free.jsonl", evaluations=40)
    assert all(candidate.macs <= half for candidate in found)
    assert any(candidate.macs < 0.9 * half for candidate in found)
