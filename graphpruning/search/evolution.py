"""MetaPruning's evolutionary search (arXiv 1903.10258, section 3.3; liuzechun/MetaPruning)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator

from graphpruning.common.errors import UserError
from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Journal
from graphpruning.search.random_search import unknown_within

Genes = tuple[int, ...]


@dataclass(frozen=True)
class EvolutionSettings:
    """MetaPruning's published values; its 20 iterations are 1,000 evaluations.

    A gene is a group's width. The first generation is random. Raises `UserError` for a population
    below 1.
    """

    population: int = 50
    """Candidates of a generation; random ones fill up what the children leave."""
    parents: int = 10
    """Candidates, the best so far, that children come from."""
    mutations: int = 25
    """Children of a generation that are made by `mutate`."""
    crossovers: int = 25
    """Children of a generation that are made by `cross`."""
    mutation_probability: float = 0.1
    """Probability that a gene of a mutated child changes."""

    def __post_init__(self) -> None:
        if self.population < 1:
            raise UserError(
                f"evolution: a population of {self.population} is too small; 1 is least"
            )


ATTEMPTS = 10
"""Tries for each child that is wanted; random candidates take the place of those not found."""


def search(
    space: SearchSpace,
    budget: int,
    journal: Journal,
    settings: EvolutionSettings,
    generator: Generator,
) -> None:
    """Ask `journal` about widths within `budget` until it has no evaluation left.

    As in MetaPruning a child over the budget is rejected, and so is one that was judged before.
    Unlike there a child within the budget is filled to 98 % of it, as in all our searches.

    Args:
        journal: answers with the accuracy of widths in percent; a higher one is a better parent.
        generator: all randomness comes from it.

    Raises:
        UserError: when the space cannot meet the budget.
    """
    accuracy: dict[Genes, float] = {}
    while left := journal.evaluations - len(journal.history):
        # Sorting is stable: of equally accurate parents the earlier one stays.
        parents = sorted(accuracy, key=accuracy.__getitem__, reverse=True)[: settings.parents]
        generation = _next_generation(space, budget, parents, set(accuracy), settings, generator)
        for genes in generation[:left]:
            accuracy[genes] = journal(space.widths(genes))


def _next_generation(
    space: SearchSpace,
    budget: int,
    parents: list[Genes],
    known: set[Genes],
    settings: EvolutionSettings,
    generator: Generator,
) -> list[Genes]:
    generation: list[Genes] = []

    def breed(child: Callable[[], Genes], count: int) -> None:
        wanted = len(generation) + count
        for _ in range(ATTEMPTS * count):
            if len(generation) == wanted:
                return
            widths = space.widths(child())
            if space.used(widths) > budget:
                continue
            genes = space.vector(space.fill(widths, budget))
            if genes not in known:
                known.add(genes)
                generation.append(genes)

    if parents:
        breed(
            lambda: mutate(space, parents, settings.mutation_probability, generator),
            settings.mutations,
        )
        breed(lambda: cross(parents, generator), settings.crossovers)
    while len(generation) < settings.population:
        genes = space.vector(unknown_within(space, budget, known, generator))
        known.add(genes)
        generation.append(genes)
    return generation


def mutate(
    space: SearchSpace, parents: list[Genes], probability: float, generator: Generator
) -> Genes:
    """Take a random parent and move each gene, with `probability`, to another of its levels."""
    genes = parents[int(torch.randint(len(parents), (), generator=generator))]
    result = []
    for group, width in zip(space.groups, genes, strict=True):
        others = [level for level in space.levels[group] if level != width]
        if others and float(torch.rand((), generator=generator)) < probability:
            width = others[int(torch.randint(len(others), (), generator=generator))]
        result.append(width)
    return tuple(result)


def cross(parents: list[Genes], generator: Generator) -> Genes:
    """Take each gene from one of two parents drawn at random, with equal chances."""
    pair = torch.randperm(len(parents), generator=generator)[:2].tolist()
    first, second = parents[pair[0]], parents[pair[-1]]
    coins = torch.randint(2, (len(first),), generator=generator).tolist()
    return tuple(a if coin else b for a, b, coin in zip(first, second, coins, strict=True))
