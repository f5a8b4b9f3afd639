"""Promotion decision: which configuration is the champion after a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mmlab.comparison.cell_tests import cell_tests
from mmlab.comparison.significance import SIGNIFICANCE
from mmlab.comparison.tables import records
from mmlab.spec.base import Scalar

#: Metric on the held-out test set that decides.
DECISION_METRIC = "knn/accuracy"


@dataclass(frozen=True)
class Contenders:
    """Methods that compete for the title of champion, by their names in tables.

    The same method can have several roles: the best trial of a search can be the default
    configuration, or the champion.

    Attributes
    ----------
    best
        The best trial of the search.
    default
        The searched method with its default hyperparameters, also where the search fixes others.
    champion
        The present champion; None if there is none.
    fixed
        Parameters that the search fixed at other values than those of the default.
    """

    best: str
    default: str
    champion: str | None = None
    fixed: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def incumbent(self) -> str:
        """The method that a challenger has to beat: the champion, else the default."""
        return self.champion or self.default

    @property
    def challengers(self) -> list[str]:
        """The best trial and the default, without the incumbent."""
        return [name for name in dict.fromkeys((self.best, self.default)) if name != self.incumbent]


@dataclass(frozen=True)
class Decision:
    """Outcome of :func:`decide`.

    Attributes
    ----------
    winner
        The champion after the promotion, by its name in tables.
    verdict
        The reason. The first line is the headline; then comes a line for each comparison, and one
        on the parameters that the search fixed, if any.
    tests
        From :func:`mmlab.comparison.cell_tests.cell_tests`: the challengers against the
        incumbent.
    """

    winner: str
    verdict: str
    tests: pd.DataFrame

    @property
    def headline(self) -> str:
        """First line of the verdict: the winner, and whether the search found anything better."""
        return self.verdict.partition("\n")[0]


def decide(rows: pd.DataFrame, contenders: Contenders) -> Decision:
    """Decide which contender is the champion.

    A challenger wins if its kNN accuracy on the held-out test set is significantly higher than
    that of the incumbent: p < 0.05 in the paired test over cells, with Holm's correction for the
    number of challengers. Of several such challengers, the one with the largest difference wins.
    Otherwise, the incumbent stays: a difference within noise is a tie.

    Parameters
    ----------
    rows
        One row per replicate and method, from the protocol ``locked``: the contenders, with at
        least one row of the incumbent, and methods that do not compete. Columns method, replicate,
        :data:`DECISION_METRIC` and its values per cell.
    """
    incumbent = contenders.incumbent
    competing = rows[rows["method"].isin([incumbent, *contenders.challengers])]
    tests = cell_tests(competing, DECISION_METRIC, incumbent)
    better = [test for test in records(tests) if _is_better(test)]
    winner = incumbent
    if better:
        winner = str(max(better, key=lambda test: float(test["mean_difference"]))["method"])
    headline = _headline(rows, contenders, winner, tests) + _better_others(rows, contenders, winner)
    lines = [
        f"{test['method']} against {incumbent}: {_outcome(test)}; {test['test']}, "
        f"{test['n']} common replicates."
        for test in records(tests)
    ]
    if contenders.fixed:
        fixed = ", ".join(f"{name}={value}" for name, value in contenders.fixed.items())
        lines.append(f"The search fixed {fixed}; the default configuration has other values.")
    return Decision(winner, "\n".join([headline, *lines]), tests)


def _headline(rows: pd.DataFrame, contenders: Contenders, winner: str, tests: pd.DataFrame) -> str:
    """Return who wins, and whether the search found anything better, in one or two sentences."""
    best, default, champion = contenders.best, contenders.default, contenders.champion
    means = rows.groupby("method")[DECISION_METRIC].mean()
    score = f"kNN accuracy {means[winner]:.4f} on the held-out test set"
    by_method = {test["method"]: test for test in records(tests)}
    roles = {default: f"the default configuration {default}", champion: f"the champion {champion}"}
    if winner == best and winner not in roles:
        text = (
            f"New champion: {best}, the best trial of the search, with {score}. Compared with "
            f"{roles[contenders.incumbent]}: {_outcome(by_method[best])}."
        )
        if default in by_method:
            against_default = _compare(rows, best, default)
            text += f" Compared with {roles[default]}: {_outcome(against_default)}."
        return text
    status = "is the new champion" if champion else "becomes the champion"
    text = (
        f"The search found nothing better than {roles[winner]}, which "
        f"{'stays champion' if winner == champion else status} with {score}; its best trial"
    )
    if winner == best:
        return f"{text} has the same hyperparameters."
    test = by_method[best] if winner == contenders.incumbent else _compare(rows, best, winner)
    return f"{text} {best} has {means[best]:.4f}, {_outcome(test)}."


def _better_others(rows: pd.DataFrame, contenders: Contenders, winner: str) -> str:
    """Return a sentence that names the other methods that are significantly better, or ""."""
    competing = {contenders.best, contenders.default, contenders.champion}
    tests = cell_tests(rows, DECISION_METRIC, winner)
    better = [
        f"{test['method']} ({_numbers(test)})"
        for test in records(tests)
        if test["method"] not in competing and _is_better(test)
    ]
    return f" Significantly better than this champion: {'; '.join(better)}." if better else ""


def _compare(rows: pd.DataFrame, method: str, reference: str) -> dict[str, Any]:
    """Return the test between two methods."""
    both = rows[rows["method"].isin([method, reference])]
    (test,) = records(cell_tests(both, DECISION_METRIC, reference))
    return test


def _is_significant(test: dict[str, Any]) -> bool:
    return bool(test["p_holm"] < SIGNIFICANCE)


def _is_better(test: dict[str, Any]) -> bool:
    return _is_significant(test) and test["mean_difference"] > 0


def _outcome(test: dict[str, Any]) -> str:
    """Return the outcome of a test with its numbers."""
    if not test["n"]:
        return "not compared, as they have no finished replicate in common"
    word = "a tie"
    if _is_significant(test):
        word = "significantly better" if _is_better(test) else "significantly worse"
    return f"{word} ({_numbers(test)})"


def _numbers(test: dict[str, Any]) -> str:
    return (
        f"difference {test['mean_difference']:+.4f}, 95 % confidence interval "
        f"{test['low']:+.4f} to {test['high']:+.4f}, p = {test['p_holm']:.2g}"
    )
