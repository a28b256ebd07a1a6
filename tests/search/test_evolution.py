import itertools

import numpy as np
import pytest
import torch

from graphpruning.common.errors import UserError
from graphpruning.search.evolution import EvolutionSettings, cross, mutate, search


def separable(space):
    """Accuracy with a known optimum: each group adds the root of its kept ratio, weighed."""
    weights = dict(zip(space.groups, (0.3, 0.05, 0.25, 0.05, 0.3, 0.05), strict=True))
    return lambda widths: (
        100
        * sum(
            weights[group] * (width / space.full[group]) ** 0.5 for group, width in widths.items()
        )
    )


@pytest.mark.parametrize("seed", range(2))
def test_it_finds_the_optimum_of_a_separable_accuracy(space, half, journal, seed):
    accuracy = separable(space)
    every = np.array(list(itertools.product(*space.levels.values())))
    within = every[space.cost.macs(every) <= half]
    optimum = max(accuracy(space.widths(vector)) for vector in within.tolist())
    opened = journal(accuracy, 300)
    search(space, half, opened, EvolutionSettings(), torch.Generator().manual_seed(seed))
    assert opened.history.best.accuracy == pytest.approx(optimum, rel=0.002)
    assert opened.computed == 300


def test_mutation_moves_each_gene_to_another_level_with_the_probability(space):
    parent = space.vector(space.full)
    generator = torch.Generator().manual_seed(0)
    assert mutate(space, [parent], 0.0, generator) == parent
    draws = [mutate(space, [parent], 1.0, generator) for _ in range(300)]
    for gene, levels in enumerate(space.levels.values()):
        assert {draw[gene] for draw in draws} == set(levels[:-1])
    draws = [mutate(space, [parent], 0.1, generator) for _ in range(500)]
    assert np.mean(np.array(draws) != parent) == pytest.approx(0.1, abs=0.02)


def test_crossover_takes_each_gene_from_one_of_two_parents():
    generator = torch.Generator().manual_seed(0)
    parents = [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    children = [cross(parents, generator) for _ in range(300)]
    assert all(len(set(child)) <= 2 for child in children)
    assert {gene for child in children for gene in child} == {1, 2, 3}
    assert np.mean([len(set(child)) == 2 for child in children]) == pytest.approx(0.75, abs=0.08)


def test_later_generations_come_from_the_best(space, half, journal):
    opened = journal(separable(space), 200)
    search(space, half, opened, EvolutionSettings(), torch.Generator().manual_seed(0))
    accuracies = [candidate.accuracy for candidate in opened.history.candidates]
    assert np.mean(accuracies[50:100]) > np.mean(accuracies[:50]) + 2


def test_empty_population_is_refused():
    with pytest.raises(UserError, match="population"):
        EvolutionSettings(population=0)
