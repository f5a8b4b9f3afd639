"""Pareto front of candidates, and the decision between a candidate and the champion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.champion.candidates import pareto_front
from mmlab.champion.decision import decide
from mmlab.spec.comparison import MethodSpec
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.tracking import Champion

tables = st.integers(1, 8).flatmap(
    lambda n: st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=n, max_size=n)
)


def dominates(one: Any, other: Any) -> bool:
    return bool((one >= other).all() and (one > other).any())


@given(tables)
def test_the_pareto_front_is_the_set_of_undominated_rows(rows: list[list[int]]) -> None:
    table = np.array(rows, dtype=float)
    front = pareto_front(table)
    assert front.any()
    for row, on_front in zip(table, front, strict=True):
        assert on_front == (not any(dominates(other, row) for other in table))


def test_nan_is_the_lowest_objective_value() -> None:
    table = np.array([[1.0, np.nan], [1.0, 0.0], [0.5, np.nan]])
    assert pareto_front(table).tolist() == [False, True, False]


NEW = MethodSpec(selector="markermap_supervised", params={"beta": 0.9}, label="new")
OLD = MethodSpec(selector="smash", params={"n_trees": 100}, label="old (champion)")


def champion(method: MethodSpec) -> Champion:
    spec = TrialSpec(data=DataSpec(name="x"), selector=method.selector, params=method.params)
    return Champion("x.y.50", "3", spec, "d" * 64, "f", "study", "source", "sha", 0)


def rows(new: list[float], old: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"method": method.title, "replicate": i, "knn/accuracy": value}
            for method, scores in ((NEW, new), (OLD, old))
            for i, value in enumerate(scores)
        ]
    )


def test_without_a_champion_the_candidate_is_promoted() -> None:
    better, verdict = decide(rows([0.5, 0.6], []), [NEW], NEW, None)
    assert better
    assert "no champion before" in verdict
    # The verdict lists the methods with a higher accuracy, also for a promoted candidate.
    _, verdict = decide(rows([0.5, 0.6], [0.7, 0.7]), [NEW, OLD], NEW, None)
    assert verdict.endswith("Higher accuracy: old (champion) 0.7000.")


@pytest.mark.parametrize(("new", "wins"), [([0.92, 0.91, 0.95], True), ([0.9, 0.9, 0.9], False)])
def test_the_mean_paired_difference_decides(new: list[float], wins: bool) -> None:
    better, verdict = decide(rows(new, [0.91, 0.9, 0.92]), [NEW, OLD], NEW, champion(OLD))
    assert better == wins
    assert "Mean difference to the champion old (champion): " in verdict
    assert " over 3 replicates, p = " in verdict


def test_equal_accuracy_does_not_replace_the_champion() -> None:
    assert not decide(rows([0.9, 0.8], [0.9, 0.8]), [NEW, OLD], NEW, champion(OLD))[0]


def test_the_champion_does_not_replace_itself() -> None:
    better, verdict = decide(rows([0.9], []), [NEW], NEW, champion(NEW))
    assert not better
    assert "it is already the champion" in verdict
