"""Promotion: Pareto front, methods that compete, and the decision between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.champion.candidates import pareto_front
from mmlab.champion.contenders import compared_methods
from mmlab.champion.decision import Contenders, Decision, decide
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.spec.search import Choices, SearchSpace, SearchSpec
from mmlab.spec.trial import DataSpec
from mmlab.tracking import Champion, TrialRecord
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.outcome import Outcome

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


# --- decision


def accuracies(n_replicates: int = 3, n_cells: int = 100, **right: int) -> pd.DataFrame:
    """Return rows of methods that classify their first ``right`` cells correctly.

    In replicate r, the cell r is wrong. A difference of 2 cells is a tie, one of 20 is not.
    """
    rows = []
    for method, n_right in right.items():
        for replicate in range(n_replicates):
            cells = (np.arange(n_cells) < n_right).astype(int)
            cells[replicate] = 0
            accuracy = cells.mean()
            row = {"method": method, "replicate": replicate, "knn/accuracy": accuracy}
            rows.append(row | {"per_cell/knn/accuracy": cells.tolist()})
    return pd.DataFrame(rows)


def outcome(decision: Decision) -> tuple[str, bool]:
    """Return the winner, and whether the first line says that the search found nothing better."""
    first_line = decision.verdict.splitlines()[0]
    assert first_line == decision.headline
    assert decision.winner in first_line
    return decision.winner, first_line.startswith("The search found nothing better than ")


NO_CHAMPION = Contenders("best", "default")
CHAMPION = Contenders("best", "default", "champion")


@pytest.mark.parametrize(
    ("right", "winner", "nothing_better"),
    [
        ({"best": 72, "default": 70}, "default", True),  # a tie
        ({"best": 90, "default": 70}, "best", False),
        ({"best": 70, "default": 90}, "default", True),
        ({"best": 70, "default": 70}, "default", True),
    ],
)
def test_without_a_champion_the_default_is_the_incumbent(
    right: dict[str, int], winner: str, nothing_better: bool
) -> None:
    decision = decide(accuracies(**right), NO_CHAMPION)
    assert outcome(decision) == (winner, nothing_better)
    assert decision.tests["method"].tolist() == ["best"]
    assert decision.tests["mean_difference"].item() == pytest.approx(
        (right["best"] - right["default"]) / 100
    )


@pytest.mark.parametrize(
    ("right", "winner", "nothing_better"),
    [
        ({"best": 72, "default": 71, "champion": 70}, "champion", True),  # ties
        ({"best": 50, "default": 50, "champion": 70}, "champion", True),
        ({"best": 90, "default": 70, "champion": 70}, "best", False),
        ({"best": 72, "default": 90, "champion": 70}, "default", True),
        ({"best": 92, "default": 90, "champion": 70}, "best", False),  # both win
        ({"best": 90, "default": 92, "champion": 70}, "default", True),
    ],
)
def test_a_challenger_takes_the_title_only_if_it_is_significantly_better(
    right: dict[str, int], winner: str, nothing_better: bool
) -> None:
    decision = decide(accuracies(**right), CHAMPION)
    assert outcome(decision) == (winner, nothing_better)
    assert set(decision.tests["reference"]) == {"champion"}
    assert decision.tests["method"].tolist() == ["best", "default"]


def test_a_tie_is_called_a_tie() -> None:
    decision = decide(accuracies(best=72, default=70), NO_CHAMPION)
    assert "best has 0.7100, a tie (difference +0.0200, " in decision.headline
    _, second_line = decision.verdict.splitlines()
    assert second_line.startswith("best against default: a tie (difference +0.0200, ")
    assert second_line.endswith("; bootstrap over cells, 3 common replicates.")
    worse = decide(accuracies(best=50, default=70), NO_CHAMPION)
    assert "best has 0.4900, significantly worse (difference -0.2000, " in worse.headline


def test_a_new_champion_that_ties_with_the_default_says_so() -> None:
    decision = decide(accuracies(best=92, default=90, champion=70), CHAMPION)
    assert decision.headline.startswith("New champion: best, the best trial of the search, with ")
    compared = "Compared with the champion champion: significantly better (difference +0.2200, "
    assert compared in decision.headline
    compared = "Compared with the default configuration default: a tie (difference +0.0200, "
    assert compared in decision.headline


def test_holms_correction_is_for_the_challengers() -> None:
    # One p-value of 0.03: significant for one challenger, but not for two.
    rows = accuracies(n_replicates=1, best=76, default=70, champion=70)
    (single,) = decide(rows, Contenders("best", "champion")).tests["p"]
    assert 0.025 < single < 0.05
    assert decide(rows, Contenders("best", "champion")).winner == "best"
    assert decide(rows, CHAMPION).winner == "champion"


@pytest.mark.parametrize(
    ("contenders", "right", "winner", "nothing_better"),
    [
        # The best trial of the search is the default.
        (Contenders("best", "best"), {"best": 70}, "best", True),
        (Contenders("best", "best", "champion"), {"best": 90, "champion": 70}, "best", True),
        (Contenders("best", "best", "champion"), {"best": 72, "champion": 70}, "champion", True),
        # It is the champion.
        (Contenders("best", "default", "best"), {"best": 70, "default": 72}, "best", True),
        (Contenders("best", "default", "best"), {"best": 70, "default": 90}, "default", True),
        # The default is the champion.
        (Contenders("best", "default", "default"), {"best": 72, "default": 70}, "default", True),
        (Contenders("best", "default", "default"), {"best": 90, "default": 70}, "best", False),
        # All three are the same.
        (Contenders("best", "best", "best"), {"best": 70}, "best", True),
    ],
)
def test_one_method_can_have_several_roles(
    contenders: Contenders, right: dict[str, int], winner: str, nothing_better: bool
) -> None:
    decision = decide(accuracies(**right), contenders)
    assert outcome(decision) == (winner, nothing_better)
    assert len(decision.tests) == len(right) - 1
    status = "stays champion" if contenders.champion == winner else "champion"
    assert status in decision.headline


def test_a_significantly_better_method_that_does_not_compete_is_named_in_the_first_line() -> None:
    rows = accuracies(best=70, default=70, smash=90, random=72)
    for contenders in (NO_CHAMPION, Contenders("best", "default", "default")):
        decision = decide(rows, contenders)
        assert decision.winner == "default"
        assert "Significantly better than this champion: smash (difference +0.2000, " in (
            decision.headline
        )
        assert "random" not in decision.verdict
    assert (
        "Significantly better" not in decide(accuracies(best=90, default=70), NO_CHAMPION).verdict
    )


def test_a_single_replicate_is_decided_by_mcnemars_test() -> None:
    decision = decide(accuracies(n_replicates=1, best=90, default=70), NO_CHAMPION)
    assert decision.winner == "best"
    assert decision.tests["test"].tolist() == ["McNemar"]
    assert decision.tests["p"].item() == pytest.approx(2 * 0.5**20)


def test_failed_replicates_are_left_out_of_the_comparison() -> None:
    rows = accuracies(best=90, default=70, champion=70)
    failed = (rows["method"] == "best") & (rows["replicate"] > 0)
    decision = decide(rows[~failed], CHAMPION)
    assert decision.winner == "best"
    assert decision.tests["n"].tolist() == [1, 3]
    # Without any common replicate, a challenger cannot win.
    apart = rows[~failed & ~((rows["method"] == "champion") & (rows["replicate"] == 0))]
    decision = decide(apart, CHAMPION)
    assert outcome(decision) == ("champion", True)
    assert "best has 0.8900, not compared, as they have no finished replicate" in decision.headline


def test_the_verdict_names_the_parameters_that_the_search_fixed() -> None:
    contenders = Contenders("best", "default", fixed={"max_epochs": 7, "batch_size": 128})
    last_line = decide(accuracies(best=72, default=70), contenders).verdict.splitlines()[-1]
    assert last_line == (
        "The search fixed max_epochs=7, batch_size=128; the default configuration has other values."
    )


def test_a_default_without_finished_replicates_does_not_win() -> None:
    decision = decide(accuracies(best=72, champion=70), CHAMPION)
    assert decision.winner == "champion"
    assert decision.tests["method"].tolist() == ["best"]


# --- methods that are evaluated

SELECTOR = "markermap_supervised"
SEARCH = SearchSpec(
    data=DataSpec(name="tiny"),
    search=SearchSpace(
        selector=SELECTOR,
        parameters={"beta": Choices(choices=[0.5, 0.9])},
        fixed={"max_epochs": 7},
    ),
    trials=2,
    n_markers=6,
)


def record(cells: Cells, **params: Any) -> TrialRecord:
    """Return a complete trial of the search."""
    spec = resolve_spec(SEARCH.trial(SELECTOR, params), cells)
    digest = spec.digest(cells.fingerprint)
    return TrialRecord("run", digest, SELECTOR, Outcome.COMPLETE, spec, {}, "")


def champion(cells: Cells, selector: str, **params: Any) -> Champion:
    """Return a champion; its specification may leave out default parameters."""
    spec = SEARCH.trial(selector, params).model_copy(update={"protocol": "locked"})
    digest, fingerprint = "c" * 64, cells.fingerprint
    return Champion("x.y.6", "3", spec, digest, fingerprint, "study", "source", "sha", 0, "run")


def test_the_default_competes_with_the_methods_own_parameters(tiny_cells: Cells) -> None:
    best = record(tiny_cells, max_epochs=7, beta=0.5)
    methods, contenders = compared_methods(SEARCH, [best], None, ["random"], tiny_cells)
    title = f"{SELECTOR} {best.digest[:8]}"
    assert [method.title for method in methods] == [title, f"{SELECTOR} (default)", "random"]
    expected = Contenders(title, f"{SELECTOR} (default)", fixed={"max_epochs": 7})
    assert contenders == expected
    assert contenders.incumbent == f"{SELECTOR} (default)"
    assert methods[1].params == {}  # also without the fixed max_epochs


def test_a_champion_of_another_method_is_the_incumbent(tiny_cells: Cells) -> None:
    best, present = record(tiny_cells, beta=0.5), champion(tiny_cells, "smash", n_trees=20)
    methods, contenders = compared_methods(SEARCH, [best], present, [], tiny_cells)
    assert contenders.incumbent == contenders.champion == "smash cccccccc (champion)"
    assert contenders.challengers == [methods[0].title, f"{SELECTOR} (default)"]
    assert methods[1].params == present.spec.params


@pytest.mark.parametrize("explicit", [False, True])
def test_equal_methods_are_evaluated_once(explicit: bool, tiny_cells: Cells) -> None:
    default = record(tiny_cells)
    others = [record(tiny_cells, beta=0.5)]
    present = champion(tiny_cells, SELECTOR, **(default.spec.params if explicit else {}))
    baselines = [SELECTOR, "random", "random"]
    methods, contenders = compared_methods(
        SEARCH, [default, *others], present, baselines, tiny_cells
    )
    best, other = (f"{SELECTOR} {r.digest[:8]}" for r in (default, *others))
    assert [method.title for method in methods] == [best, other, "random"]
    assert contenders == Contenders(best, best, best, {"max_epochs": 7})
    assert contenders.challengers == []
    # The best trial is the champion, and the default is another configuration.
    methods, contenders = compared_methods(
        SEARCH, others, champion(tiny_cells, SELECTOR, beta=0.5), [], tiny_cells
    )
    assert contenders == Contenders(other, f"{SELECTOR} (default)", other, {"max_epochs": 7})


def test_all_unknown_baselines_are_reported_together(tiny_cells: Cells) -> None:
    with pytest.raises(UserError, match=r"'randon' is not among.*'smesh' is not among"):
        baselines = ["randon", "smesh"]
        compared_methods(SEARCH, [record(tiny_cells)], None, baselines, tiny_cells)
