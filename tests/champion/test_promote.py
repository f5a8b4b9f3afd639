"""What is promoted, and why."""

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

values = st.integers(1, 8).flatmap(
    lambda n: st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=n, max_size=n)
)


def beats(one: Any, other: Any) -> bool:
    return bool((one >= other).all() and (one > other).any())


@given(values)
def test_the_front_holds_exactly_what_nothing_beats(rows: list[list[int]]) -> None:
    table = np.array(rows, dtype=float)
    front = pareto_front(table)
    assert front.any()
    for row, on_front in zip(table, front, strict=True):
        assert on_front == (not any(beats(other, row) for other in table))


def test_an_unknown_objective_value_is_the_worst() -> None:
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


def test_without_a_champion_any_candidate_is_the_best() -> None:
    better, verdict = decide(rows([0.5, 0.6], []), [NEW], NEW, None)
    assert better
    assert "no champion before" in verdict
    # Whoever is promoted, the reader is told what did better.
    _, verdict = decide(rows([0.5, 0.6], [0.7, 0.7]), [NEW, OLD], NEW, None)
    assert verdict.endswith("Ahead of it: old (champion) 0.7000.")


@pytest.mark.parametrize(("new", "wins"), [([0.92, 0.91, 0.95], True), ([0.9, 0.9, 0.9], False)])
def test_the_mean_paired_difference_decides(new: list[float], wins: bool) -> None:
    better, verdict = decide(rows(new, [0.91, 0.9, 0.92]), [NEW, OLD], NEW, champion(OLD))
    assert better == wins
    assert "against the champion old (champion) over 3 replicates, p = " in verdict


def test_as_good_is_not_better() -> None:
    assert not decide(rows([0.9, 0.8], [0.9, 0.8]), [NEW, OLD], NEW, champion(OLD))[0]


def test_the_champion_does_not_replace_itself() -> None:
    better, verdict = decide(rows([0.9], []), [NEW], NEW, champion(NEW))
    assert not better
    assert "it is the champion already" in verdict
