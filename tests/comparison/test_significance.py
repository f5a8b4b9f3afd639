"""Significance of a comparison: the reference of the tests, and which methods are bold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmlab.comparison.result_table import summarise_rows
from mmlab.comparison.shown_table import markdown
from mmlab.comparison.significance import (
    TESTED_METRICS,
    add_significance,
    bold_note,
    leading_method,
    metric_direction,
    reference_method,
    reference_tests,
)
from mmlab.comparison.tables import compare_methods, view_tables
from mmlab.selectors import control_methods

SHIPPED = Path(__file__).parents[2] / "experiments" / "results" / "zeisel.parquet"
#: Easy and hard splits: what a split adds to the accuracy of every method.
SPLITS = np.array([0.04, 0.03, 0.05, -0.02, 0.0, -0.04, -0.05, -0.03, 0.01, 0.01])
#: What differs between two methods from split to split.
JITTER = np.array([4, -3, 1, -1, 3, -4, 2, -2, 5, -5]) / 1000


def rows_of(
    values: Mapping[str, Mapping[int, float]], metric: str = "knn/accuracy", setting: str = "k=50"
) -> pd.DataFrame:
    """Return rows of finished replicates from values by method and replicate."""
    return pd.DataFrame(
        {
            "dataset": "zeisel",
            "method": method,
            "selector": method,
            "n_markers": 50,
            "setting": setting,
            "replicate": replicate,
            "panel": [1, 2],
            "fit_seconds": 1.0,
            metric: value,
        }
        for method, by_replicate in values.items()
        for replicate, value in by_replicate.items()
    )


def accuracies(
    shift: float, jitter: float = 0.0, splits: Sequence[int] = range(10)
) -> dict[int, float]:
    return {r: float(0.85 + shift + SPLITS[r] + jitter * JITTER[r]) for r in splits}


#: The best method; one that ties with it; one that is worse; on easy splits only, a worse one with
#: a higher mean; on hard splits only, an equal one with a lower mean; a better one and a worse one
#: with a single split; two controls above all others.
VALUES = {
    "worse": accuracies(-0.03, 1),
    "best": accuracies(0.0),
    "tie": accuracies(-0.001, 1),
    "easy": accuracies(-0.02, 0.1, splits=(0, 1, 2)),
    "hard": accuracies(0.0, 1, splits=(5, 6, 7)),
    "once_better": accuracies(0.05, splits=(0,)),
    "once_worse": accuracies(-0.05, splits=(9,)),
    "all_genes": accuracies(0.06),
    "oracle": accuracies(0.07, 0.1, splits=(0, 1, 2)),
}
CONTROLS = {"all_genes", "oracle"}


def bold_methods(rows: pd.DataFrame, controls: set[str] = CONTROLS) -> set[str]:
    """Return the methods that the Markdown table prints in bold."""
    text = markdown(
        view_tables(compare_methods(rows, summarise_rows(rows, 100), controls), 50, "**{}**".format)
    )
    lines = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    return {line[1].strip() for line in lines if "**" in "".join(line)}


def test_means_alone_would_mislead() -> None:
    means = {method: np.mean(list(values.values())) for method, values in VALUES.items()}
    assert means["easy"] > means["best"] > means["hard"] + 0.03


def test_ties_are_bold_and_controls_and_few_splits_are_not() -> None:
    assert bold_methods(rows_of(VALUES)) == {"best", "tie"}


def test_ties_over_few_splits_are_bold_if_no_method_has_more() -> None:
    first = {name: {split: VALUES[name][split] for split in range(3)} for name in ("best", "tie")}
    assert bold_methods(rows_of(first)) == {"best", "tie"}
    five = VALUES | {"hard": accuracies(0.0, 1, splits=(5, 6, 7, 8, 9))}
    assert bold_methods(rows_of(five)) == {"best", "tie", "hard"}


def test_lower_errors_are_better() -> None:
    errors = {m: {r: 1 - v for r, v in values.items()} for m, values in VALUES.items()}
    assert bold_methods(rows_of(errors, "linear/l2")) == {"best", "tie"}


def test_the_tests_are_on_the_common_splits() -> None:
    tests = reference_tests(rows_of(VALUES), CONTROLS).set_index("method")
    assert set(tests["reference"]) == {"best"}
    assert tests["n"].to_dict() == {
        **{"worse": 10, "tie": 10, "easy": 3, "hard": 3},
        **{"once_better": 1, "once_worse": 1},
    }
    assert tests.loc["easy", "mean_difference"] == pytest.approx(-0.02 + 0.1 * JITTER[:3].mean())
    assert tests.loc["hard", "mean_difference"] == pytest.approx(JITTER[5:8].mean())
    untested = tests.loc[["once_better", "once_worse"], ["low", "high", "p", "p_holm"]]
    assert untested.isna().all(axis=None)


def test_a_method_that_is_significantly_better_on_fewer_splits_is_bold() -> None:
    rows = rows_of(VALUES | {"better": accuracies(0.05, 1, splits=(0, 1, 2, 3))})
    tests = reference_tests(rows, CONTROLS).set_index("method")
    assert tests.loc["better", "p_holm"] < 0.05
    assert "better" in bold_methods(rows)


def test_as_competitors_the_controls_would_win() -> None:
    assert bold_methods(rows_of(VALUES), set()) == CONTROLS


def test_the_reference_is_chosen_among_methods_with_the_same_splits() -> None:
    # No method has all splits; "a" and "b" share theirs, "c" has other, easier ones.
    values = {
        "c": accuracies(-0.01, splits=(0, 1, 2, 3)),
        "a": accuracies(-0.02, splits=(3, 4, 5, 6)),
        "b": accuracies(0.0, splits=(3, 4, 5, 6)),
        "d": accuracies(0.1, splits=(0, 1, 2)),
    }
    assert reference_method(rows_of(values), "knn/accuracy") == "b"
    missing = rows_of(values).assign(**{"knn/accuracy": np.nan})
    assert reference_method(missing, "knn/accuracy") is None


@pytest.mark.parametrize(
    "values", [{"only": accuracies(0)}, {"a": accuracies(0, splits=(3,)), "b": {3: 0.2}}]
)
def test_nothing_is_bold_if_no_test_is_possible(values: Mapping[str, Mapping[int, float]]) -> None:
    rows = rows_of(values)
    tests = reference_tests(rows, CONTROLS)
    assert not add_significance(summarise_rows(rows, 100), tests)["bold"].any()
    assert bold_note(tests).startswith("Nothing is bold")
    assert bold_methods(rows) == set()


def test_controls_alone_are_not_tested() -> None:
    rows = rows_of({"oracle": accuracies(0), "all_genes": accuracies(0.1)})
    assert reference_tests(rows, CONTROLS).empty
    assert bold_methods(rows) == set()
    assert bold_note(reference_tests(rows, CONTROLS)).startswith("Nothing is bold")


def test_every_setting_has_its_own_reference_and_correction() -> None:
    first = {"a": accuracies(0.1, 1), "b": accuracies(0), "c": accuracies(0.099)}
    second = {"a": accuracies(0.01, 1), "b": accuracies(0.1), "c": accuracies(0)}
    rows = pd.concat([rows_of(first), rows_of(second, setting="other")], ignore_index=True)
    tests = reference_tests(rows, set())
    assert tests.groupby("setting")["reference"].unique().map(list).to_dict() == {
        "k=50": ["a"],
        "other": ["b"],
    }
    table = add_significance(summarise_rows(rows, 100), tests)
    bold = table[table["bold"]]
    assert {(setting, method) for setting, method in bold[["setting", "method"]].to_numpy()} == {
        ("k=50", "a"),
        ("k=50", "c"),
        ("other", "b"),
    }


def test_the_note_names_the_test_and_warns_of_few_replicates() -> None:
    tests = reference_tests(rows_of(VALUES), CONTROLS)
    assert "corrected resampled t-test, Holm's correction" in bold_note(tests)
    assert "only if it is significantly better" in bold_note(tests)
    assert "too little is known" not in bold_note(tests[tests["n"] == 10])
    assert "bold can mean that too little is known" in bold_note(tests[tests["n"] == 3])


def test_only_tested_metrics_are_bold() -> None:
    rows = rows_of(VALUES).assign(**{"leiden/nmi": 0.5, "knn/balanced_accuracy": 0.5})
    table = add_significance(summarise_rows(rows, 100), reference_tests(rows, CONTROLS))
    assert set(table.loc[table["bold"], "metric"]) == {"knn/accuracy", "knn/balanced_accuracy"}


# --- an independent computation on the shipped results


@pytest.fixture(scope="module")
def shipped() -> pd.DataFrame:
    rows = pd.read_parquet(SHIPPED)
    rows = rows.assign(method=rows["selector"], n_markers=50, setting="k=50")
    # Some methods have replicates of several seeds; any one row per replicate serves here.
    return rows.drop_duplicates(["method", "replicate"])


@pytest.fixture(scope="module")
def shipped_tests(shipped: pd.DataFrame) -> pd.DataFrame:
    return reference_tests(shipped, control_methods())


@pytest.mark.parametrize("metric", [m for m in TESTED_METRICS if not m.startswith("clean_")])
def test_tests_of_the_shipped_results_equal_an_independent_computation(
    shipped: pd.DataFrame, shipped_tests: pd.DataFrame, metric: str
) -> None:
    tests = shipped_tests[shipped_tests["metric"] == metric].set_index("method")
    values = shipped.pivot(index="replicate", columns="method", values=metric)
    values = values.drop(columns=[c for c in control_methods() if c in values])
    complete = values.dropna(axis="columns")
    assert 1 < complete.shape[1] < values.shape[1]
    higher_is_better = metric_direction(metric) == "max"
    assert higher_is_better == (metric.partition("/")[0] != "linear")
    means = complete.mean().sort_values(ascending=not higher_is_better)
    (reference,) = tests["reference"].unique()
    assert reference == means.index[0]
    assert set(tests.index) == set(values.columns) - {reference}
    p_values = {}
    for method, test in tests.iterrows():
        common = values[[method, reference]].dropna()
        difference = common[method] - common[reference]
        n = len(common)
        assert test["n"] == n
        assert test["mean_difference"] == pytest.approx(difference.mean())
        # Nadeau and Bengio: the variance of the mean of n splits is (1/n + n_test/n_train) s^2.
        squares = ((difference - difference.mean()) ** 2).sum()
        error = (squares / (n - 1) * (1 / n + 0.2 / 0.8)) ** 0.5
        distribution = stats.t(df=n - 1, loc=difference.mean(), scale=error)
        assert (test["low"], test["high"]) == pytest.approx(distribution.interval(0.95))
        p_values[method] = 2 * stats.t(df=n - 1).cdf(-abs(difference.mean() / error))
        assert test["p"] == pytest.approx(p_values[method])
    ordered = sorted(p_values, key=lambda m: p_values[m])
    for rank, method in enumerate(ordered):
        corrected = max(p_values[m] * (len(ordered) - i) for i, m in enumerate(ordered[: rank + 1]))
        assert tests.loc[method, "p_holm"] == pytest.approx(min(1, corrected))


def test_bold_methods_of_the_shipped_results_are_ties_over_enough_splits(
    shipped: pd.DataFrame, shipped_tests: pd.DataFrame
) -> None:
    table = add_significance(summarise_rows(shipped, 4000), shipped_tests)
    for metric, tests in shipped_tests.groupby("metric"):
        sign = -1 if str(metric).startswith("linear") else 1
        worse = tests[(tests["p_holm"] < 0.05) & (sign * tests["mean_difference"] < 0)]
        few = tests[(tests["p_holm"] >= 0.05) & (tests["n"] < 5)]
        part = table[table["metric"] == metric]
        controls = set(part["method"]) & control_methods()
        assert set(part.loc[~part["bold"], "method"]) == {
            *worse["method"],
            *few["method"],
            *controls,
        }


def test_the_leader_has_all_replicates_at_all_settings() -> None:
    def rows(setting: str, **values: list[float]) -> pd.DataFrame:
        by_replicate = {method: dict(enumerate(column)) for method, column in values.items()}
        return rows_of(by_replicate, setting=setting)

    low = rows("k=5", even=[0.6, 0.6], steep=[0.3, 0.3], all_genes=[0.9, 0.9])
    high = rows("k=9", even=[0.7, 0.7], steep=[0.8, 0.8], partial=[0.9, 0.9], all_genes=[0.9, 0.9])
    both = pd.concat([low, high], ignore_index=True)
    assert leading_method(both, {"all_genes"}) == "even"
    assert leading_method(both[both["method"] == "all_genes"], {"all_genes"}) == "all_genes"
    assert leading_method(pd.DataFrame(), set()) is None
