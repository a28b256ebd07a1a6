"""Predictors of accuracy against closed forms, and against what they should and cannot learn."""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy import stats

from graphpruning.gaussian_process import GaussianProcess
from graphpruning.network.trace import trace
from graphpruning.network.widths import SearchSpace
from graphpruning.network.zoo import build
from graphpruning.neural_predictor import GraphNetwork, Nodes
from graphpruning.predictor import PREDICTORS, LogWidths, Ridge
from graphpruning.search.predicted import PredictorSettings

every = pytest.mark.parametrize("kind", PREDICTORS)


@pytest.fixture(scope="module")
def space():
    torch.manual_seed(0)
    return SearchSpace(trace(build("resnet8", 10, in_channels=1), (1, 16, 16)))


def vectors(space, count, seed):
    generator = torch.Generator().manual_seed(seed)
    return np.array([space.vector(space.sample(generator)) for _ in range(count)])


def truth(vectors):
    """Concave in the widths, with an interaction of two groups."""
    logs = np.log2(vectors)
    return 60 + logs @ np.linspace(0.5, 2, logs.shape[1]) + 0.1 * logs[:, 0] * logs[:, -1]


def identity(x):
    return np.asarray(x, dtype=np.float64)


@every
def test_it_learns_order_and_level_from_a_hundred_vectors(space, kind):
    seen, unseen = vectors(space, 100, 0), vectors(space, 200, 1)
    predictor = PREDICTORS[kind](space, 0)
    predictor.fit(seen, truth(seen))
    mean, deviation = predictor.predict(unseen)
    assert mean.shape == deviation.shape == (200,) and (deviation > 0).all()
    assert stats.kendalltau(mean, truth(unseen)).statistic > 0.75
    assert np.abs(mean - truth(unseen)).mean() < 0.35 * truth(unseen).std()


@every
def test_shuffled_accuracies_teach_no_order(space, kind):
    """A shuffle happens to favour some order, its mirror image the opposite: none is built in."""
    seen, unseen = vectors(space, 100, 0), vectors(space, 200, 1)
    taus = []
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(truth(seen))
        for accuracies in (shuffled, 2 * shuffled.mean() - shuffled):
            predictor = PREDICTORS[kind](space, 0)
            predictor.fit(seen, accuracies)
            mean = predictor.predict(unseen)[0]
            taus.append(stats.kendalltau(mean, truth(unseen)).statistic if np.ptp(mean) else 0.0)
    assert abs(np.mean(taus)) < 0.1


@every
def test_equal_accuracies_are_predicted_as_they_are(space, kind):
    seen = vectors(space, 12, 0)
    predictor = PREDICTORS[kind](space, 0)
    predictor.fit(seen, np.full(12, 71.5))
    mean, deviation = predictor.predict(vectors(space, 9, 1))
    np.testing.assert_allclose(mean, 71.5, atol=0.5)
    assert np.isfinite(deviation).all()


@every
def test_the_same_seed_learns_the_same_whatever_was_learnt_before(space, kind):
    seen, other = vectors(space, 20, 0), vectors(space, 20, 1)
    first, second = PREDICTORS[kind](space, 3), PREDICTORS[kind](space, 3)
    second.fit(other, truth(other)[::-1].copy())
    torch.manual_seed(5)
    for predictor in (first, second):
        predictor.fit(seen, truth(seen))
    np.testing.assert_array_equal(first.predict(other), second.predict(other))


@pytest.mark.parametrize("kind", ["ridge", "gp", "perceptron"])
def test_it_is_less_sure_far_from_what_it_saw(space, kind):
    generator = torch.Generator().manual_seed(0)
    narrow = np.array(
        [
            [
                int(space.levels[g][int(torch.randint(3, (), generator=generator))])
                for g in space.groups
            ]
            for _ in range(40)
        ]
    )
    predictor = PREDICTORS[kind](space, 0)
    luck = 0.3 * np.random.default_rng(0).standard_normal(40)
    predictor.fit(narrow, truth(narrow) + luck)
    (_, near), (_, far) = (
        predictor.predict(rows) for rows in (narrow, np.array([space.vector(space.full)]))
    )
    assert far[0] > 2 * near.mean()


def test_settings_know_every_predictor():
    kinds = get_args(PredictorSettings.__dataclass_fields__["kind"].type)
    assert kinds == tuple(PREDICTORS)


def test_features_are_standardised_over_the_levels(space):
    features = LogWidths(space)
    for column, group in enumerate(space.groups):
        rows = np.repeat([space.vector(space.full)], len(space.levels[group]), axis=0)
        rows[:, column] = space.levels[group]
        found = features(rows)[:, column]
        np.testing.assert_allclose([found.mean(), found.std()], [0, 1], atol=1e-9)


@pytest.mark.parametrize("count", [4, 30])
def test_ridge_is_the_closed_form_of_bayesian_regression(count):
    """With more directions than vectors too; by the inverse of P where the code uses the SVD."""
    random = np.random.default_rng(0)
    x, new = random.standard_normal((count, 6)), random.standard_normal((5, 6))
    y = x @ [1, 2, 0, 0, -1, 0.5] + 0.3 * random.standard_normal(count) + 70
    ridge = Ridge(identity)
    ridge.fit(x, y)
    centred = x - x.mean(axis=0)
    inverse = np.linalg.inv(centred.T @ centred + ridge.ridge * np.eye(6))
    weights = inverse @ centred.T @ (y - y.mean())
    mean, deviation = ridge.predict(new)
    far = new - x.mean(axis=0)
    np.testing.assert_allclose(mean, y.mean() + far @ weights)
    variance = ridge.noise * (np.einsum("ni,ij,nj->n", far, inverse, far) + 1 / count)
    np.testing.assert_allclose(deviation, variance**0.5)


def test_ridge_takes_the_likeliest_prior():
    """By the density of y under r, up to a constant and with the likeliest noise."""
    random = np.random.default_rng(1)
    x = random.standard_normal((25, 4))
    y = x @ [0.2, 0, 0.1, 0] + random.standard_normal(25)
    ridge = Ridge(identity)
    ridge.fit(x, y)
    centred, target = x - x.mean(axis=0), y - y.mean()

    def log_likelihood(r):
        kernel = np.eye(25) + centred @ centred.T / r
        noise = target @ np.linalg.solve(kernel, target) / 24
        return -12 * np.log(noise) - 0.5 * np.linalg.slogdet(kernel)[1]

    around = [ridge.ridge * factor for factor in (0.3, 0.5, 2, 3)]
    assert all(log_likelihood(ridge.ridge) >= log_likelihood(other) for other in around)


def test_a_gaussian_process_knows_what_it_was_told_without_noise():
    x = np.linspace(-2, 2, 9)[:, None]
    process = GaussianProcess(identity)
    process.fit(x, np.sin(x[:, 0]))
    between = x[:-1] + 0.25
    mean, deviation = process.predict(between)
    np.testing.assert_allclose(mean, np.sin(between[:, 0]), atol=0.01)
    assert process.predict(np.array([[9.0]]))[1] > 10 * deviation.max()


def test_layers_are_mixed_as_pygs_gcn_does(space):
    from graphpruning.pruningnet.aggregator import GraphAggregator

    aggregator = GraphAggregator(space.graph)
    dense = torch.zeros(len(space.graph.layers), len(space.graph.layers))
    dense[aggregator.edge_index[1], aggregator.edge_index[0]] = aggregator.edge_weight
    torch.testing.assert_close(Nodes.of(space.graph, edges=True).mixing, dense)
    assert torch.equal(Nodes.of(space.graph, edges=False).mixing, torch.eye(len(dense)))


def test_a_graph_network_can_be_asked_about_another_network(space):
    """Whose layers it has never seen: wider is better there too."""
    torch.manual_seed(0)
    other = SearchSpace(trace(build("resnet14", 10, in_channels=1), (1, 16, 16)))
    seen, unseen = vectors(space, 100, 0), vectors(other, 100, 1)
    predictor = GraphNetwork(space.graph, 0)
    predictor.fit(seen, np.log2(seen).sum(axis=1))
    mean, _ = predictor.predict_of(other.graph, unseen)
    assert stats.kendalltau(mean, np.log2(unseen).sum(axis=1)).statistic > 0.4
    np.testing.assert_array_equal(predictor.predict_of(space.graph, seen), predictor.predict(seen))
