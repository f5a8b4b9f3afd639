"""NS-Forest: each step against an independent computation, and types that are rare."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import fbeta_score

from mmlab.selectors.ns_forest import (
    NSForest,
    best_combination,
    binary_scores,
    expressed_above_threshold,
    f_beta,
    high_scoring_genes,
    round_robin,
)


@given(arrays(np.float32, (4, 6), elements=st.integers(0, 5).map(float)))
def test_binary_scores_equal_the_formula(medians: NDArray[np.float32]) -> None:
    expected = np.zeros((4, 6))
    for c in range(4):
        for g in range(6):
            if medians[c, g] > 0:
                drops = [1 - medians[o, g] / medians[c, g] for o in range(4) if o != c]
                expected[c, g] = sum(max(0, drop) for drop in drops) / 3
    np.testing.assert_allclose(binary_scores(medians), expected, atol=1e-6)


@given(arrays(bool, 12), arrays(bool, 12))
def test_f_beta_equals_scikit_learn(truth: Any, predicted: Any) -> None:
    expected = fbeta_score(truth, predicted, beta=0.5, zero_division=0)
    assert f_beta(truth, predicted) == pytest.approx(expected)


def test_round_robin_orders_each_round_by_strength() -> None:
    strength = np.zeros((3, 10))
    strength[0, 1], strength[1, 5], strength[2, 7] = 0.2, 0.9, 0.5
    lists = [np.array([1, 2]), np.array([5]), np.array([7, 8, 9])]
    assert round_robin(lists, strength) == [5, 7, 1, 2, 8, 9]


def test_ns_forest_finds_a_combination_of_two_genes() -> None:
    # Both genes are expressed in class 0 only; each alone is also expressed in another class.
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2, 3], 60)
    x = rng.exponential(0.2, size=(240, 60)).astype(np.float32)
    x[np.isin(y, [0, 1]), 4] += 4
    x[np.isin(y, [0, 2]), 9] += 4
    selector = NSForest(4, n_trees=50).fit(x, y)
    assert set(selector.panel_[:2].tolist()) == {4, 9}
    assert selector.scores_[[4, 9]].min() > 1


def rare_type() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return log1p values and types of 1000 cells, of which 10 are of the rare type 0.

    Gene 0 marks the rare type: expressed in all of its cells, and in 15 others, so that most
    cells above any threshold are of other types. Genes 1 and 2 have the higher binary score, but
    are expressed in 8 % of the other cells. Genes 3 and 4 mark the other types.
    """
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [10, 500, 490])
    x = rng.uniform(0, 0.3, size=(1000, 40)).astype(np.float32)
    x[:, 1:3] = 0
    for gene in (1, 2):
        x[rng.permutation(10)[:6], gene] = 3
        x[10 + rng.permutation(990)[:80], gene] = 3
    high = np.concatenate([np.arange(10), 10 + rng.permutation(990)[:15]])
    x[high, 0] = 4
    x[y == 1, 3] += 4
    x[y == 2, 4] += 4
    return x, y


def test_ns_forest_finds_the_marker_of_a_rare_type() -> None:
    x, y = rare_type()
    is_rare = y == 0
    np.testing.assert_array_equal(expressed_above_threshold(x[:, 0], is_rare), x[:, 0] > 2)
    selector = NSForest(4, n_trees=20).fit(x, y)
    assert selector.scores_[0] > 1  # in the combination of its type
    assert set(selector.panel_[:3].tolist()) > {3, 4}
    assert 0 in selector.panel_


def brute_force_combination(x: NDArray[np.float32], is_class: Any) -> set[int]:
    """Try all thresholds and all combinations; scores by scikit-learn."""
    positive = []
    for gene in x.T:
        values = np.unique(gene)
        impurity = {}
        for threshold in (values[:-1] + values[1:]) / 2:
            sides = [is_class[gene <= threshold], is_class[gene > threshold]]
            impurity[threshold] = sum(len(s) * s.mean() * (1 - s.mean()) for s in sides)
        positive.append(gene > min(impurity, key=lambda t: impurity[t]))
    sets = [list(c) for size in range(1, 5) for c in combinations(range(x.shape[1]), size)]
    predicted = [np.all([positive[i] for i in members], axis=0) for members in sets]
    scores = [fbeta_score(is_class, p, beta=0.5, zero_division=0) for p in predicted]
    return set(sets[int(np.argmax(scores))])


@pytest.mark.parametrize("seed", range(12))
def test_the_best_combination_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    is_class = rng.permutation(120) < (4 if seed % 2 else 30)
    x = rng.exponential(1, size=(120, 4)).astype(np.float32)
    x[is_class] += rng.uniform(0, 2, size=4).astype(np.float32)
    found = best_combination(x, is_class)
    assert set(found.tolist()) == brute_force_combination(x, is_class)


def test_a_gene_without_a_threshold_is_positive_nowhere() -> None:
    is_class = np.arange(10) < 3
    assert not expressed_above_threshold(np.ones(10, dtype=np.float32), is_class).any()
    assert best_combination(np.ones((10, 2), dtype=np.float32), is_class).tolist() == [0]


def test_genes_of_a_high_binary_score_are_those_above_mean_and_two_standard_deviations() -> None:
    rng = np.random.default_rng(0)
    medians = rng.exponential(0.1, size=(10, 30)).astype(np.float32)
    medians[np.arange(10), np.arange(10)] = 4
    medians[:, ::4] = 0
    binary = binary_scores(medians)
    scores = pd.DataFrame(binary).loc[:, medians.max(axis=0) > 0].stack()
    expected = scores[scores >= scores.mean() + 2 * scores.std()].index
    found = [(c, g) for c, genes in enumerate(high_scoring_genes(binary, medians)) for g in genes]
    assert found == expected.tolist() != []


def test_ns_forest_fills_the_panel_beyond_its_combinations(
    layers: dict[str, Any], labels: Any
) -> None:
    selector = NSForest(40, n_trees=20).fit(layers["log1p"].toarray(), labels)
    n_chosen = int((selector.scores_ > 1).sum())
    assert 3 <= n_chosen < 40
    assert (selector.scores_[selector.panel_[:n_chosen]] > 1).all()
