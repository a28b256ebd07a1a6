import torch

from graphpruning.search import random_search


def test_candidates_differ_and_fill_the_budget(space, half, journal):
    opened = journal(lambda widths: 50.0, 60)
    random_search.search(space, half, opened, torch.Generator().manual_seed(0))
    assert opened.computed == 60
    assert all(0.98 * half <= c.macs <= half for c in opened.history.candidates)


def test_space_with_too_few_candidates_still_gets_its_evaluations(space, journal, tmp_path):
    budget = space.macs(space.smallest)
    opened = journal(lambda widths: 50.0, 5)
    random_search.search(space, budget, opened, torch.Generator().manual_seed(0))
    assert (len(opened.history), opened.computed) == (5, 1)
