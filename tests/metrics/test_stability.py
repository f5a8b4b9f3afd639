"""Stability of panels: Nogueira's index and the mean Jaccard index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.metrics.stability import mean_jaccard, nogueira_stability


def panels(*genes: list[int]) -> list[Any]:
    return [np.array(panel) for panel in genes]


def reference_stability(selected: np.ndarray) -> tuple[float, float]:
    """Index and variance by definition 4 and theorem 7 of Nogueira et al. 2018, term by term."""
    m, d = selected.shape
    p = selected.mean(axis=0)
    k = selected.sum(axis=1)
    kbar = k.mean()
    s2 = [m / (m - 1) * p[f] * (1 - p[f]) for f in range(d)]
    chance = kbar / d * (1 - kbar / d)
    value = 1 - sum(s2) / d / chance
    phi = [
        (
            sum(selected[i, f] * p[f] for f in range(d)) / d
            - k[i] * kbar / d**2
            + value / 2 * (2 * k[i] * kbar / d**2 - k[i] / d - kbar / d + 1)
        )
        / chance
        for i in range(m)
    ]
    variance = 4 / m**2 * sum((x - sum(phi) / m) ** 2 for x in phi)
    return value, variance


def test_identical_panels_have_stability_one() -> None:
    found = nogueira_stability(panels([1, 2], [2, 1], [1, 2]), 10)
    assert found.value == 1
    assert found.variance == pytest.approx(0, abs=1e-12)
    assert found.low == pytest.approx(found.high) == pytest.approx(1)


def test_an_example_calculated_by_hand() -> None:
    # Genes 0..3; p = (1, 1/2, 1/2, 0), s2 = 2 p (1 - p) = (0, 1/2, 1/2, 0): 1 - (1/4) / (1/4).
    assert nogueira_stability(panels([0, 1], [0, 2]), 4).value == pytest.approx(0)
    # Nothing shared: s2 = 1/2 everywhere.
    assert nogueira_stability(panels([0, 1], [2, 3]), 4).value == pytest.approx(-1)


def test_random_panels_have_stability_zero() -> None:
    rng = np.random.default_rng(0)
    drawn = [rng.choice(1000, 50, replace=False) for _ in range(40)]
    found = nogueira_stability(drawn, 1000)
    assert found.low < 0 < found.high
    assert abs(found.value) < 0.01


@given(st.integers(2, 6), st.integers(4, 12), st.integers(0, 10_000))
def test_index_and_variance_follow_the_definition(m: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    selected = rng.random((m, d)) < 0.4
    selected[:, 0], selected[:, 1] = True, False
    found = nogueira_stability([np.flatnonzero(row) for row in selected], d)
    value, variance = reference_stability(selected.astype(float))
    assert found.value == pytest.approx(value)
    assert found.variance == pytest.approx(variance, abs=1e-12)
    assert found.low <= found.value <= found.high
    renamed = rng.permutation(rng.permutation(selected), axis=1)
    shuffled = [rng.permutation(np.flatnonzero(row)) for row in renamed]
    assert nogueira_stability(shuffled, d).value == pytest.approx(value)


@given(st.integers(2, 6), st.sets(st.integers(0, 11), min_size=1, max_size=11))
def test_repeated_panels_of_any_size_have_stability_one(m: int, genes: set[int]) -> None:
    same = panels(*[list(genes)] * m)
    assert nogueira_stability(same, 12).value == mean_jaccard(same) == 1


def test_the_variance_estimates_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(0)
    probability = np.repeat([0.8, 0.08], [5, 45])
    found = []
    for _ in range(400):
        selected = rng.random((100, 50)) < probability
        found.append(nogueira_stability([np.flatnonzero(row) for row in selected], 50))
    spread = np.var([stability.value for stability in found])
    assert np.mean([stability.variance for stability in found]) == pytest.approx(spread, rel=0.25)


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    some = panels([0, 1], [0, 2], [0, 1], [1, 3])
    narrow, wide = (nogueira_stability(some, 9, c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("some", "n_genes", "message"),
    [
        (panels([1]), 5, "at least two panels, got 1"),
        (panels([0, 1], [1, 0]), 2, "not defined for empty panels or panels of all genes"),
    ],
)
def test_undefined_stability_is_an_error(some: Any, n_genes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nogueira_stability(some, n_genes)


def test_mean_jaccard_of_an_example_calculated_by_hand() -> None:
    # Pairs: 1/3, 0, 1/3.
    assert mean_jaccard(panels([0, 1], [1, 2], [2, 3])) == pytest.approx(2 / 9)
    assert mean_jaccard(panels([4, 5], [5, 4])) == 1
    with pytest.raises(ValueError, match="at least two panels"):
        mean_jaccard(panels([0]))
