"""Promotion decision: compare a candidate with the champion on the held-out test set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmlab.comparison.paired_tests import paired_tests
from mmlab.spec.comparison import MethodSpec
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import Champion

#: Metric on the held-out test set that decides between a candidate and the champion.
DECISION_METRIC = "knn/accuracy"


def decide(
    rows: pd.DataFrame, methods: Sequence[MethodSpec], method: MethodSpec, previous: Champion | None
) -> tuple[bool, str]:
    """Return whether a candidate replaces the champion, and the reason in a few sentences.

    A candidate replaces the champion if its mean kNN accuracy on the held-out test set is higher,
    over the replicates that both have. Without a champion it is promoted in any case.

    Parameters
    ----------
    rows
        One row per replicate and method, from the protocol ``locked``. Columns method, replicate
        and :data:`DECISION_METRIC`.
    methods
        All evaluated methods, including the champion.
    method
        The candidate.
    previous
        The present champion; None if there is none.
    """
    means = rows.groupby("method", sort=False)[DECISION_METRIC].mean()
    accuracy = means[method.title]
    score = f"{method.title} has kNN accuracy {accuracy:.4f} on the held-out test set"
    higher = means[means > accuracy].sort_values(ascending=False)
    listed = ", ".join(f"{name} {value:.4f}" for name, value in higher.items())
    more_accurate = f" Higher accuracy: {listed}." if len(higher) else ""
    if previous is None:
        return True, f"{score}; there was no champion before.{more_accurate}"
    champion = next(m for m in methods if is_same_method(m, previous.spec))
    if champion is method:
        return False, f"{score}; it is already the champion.{more_accurate}"
    both = rows[rows["method"].isin([method.title, champion.title])]
    (test,) = paired_tests(both, DECISION_METRIC, champion.title).to_dict(orient="records")
    difference, p = float(test["mean_difference"]), float(test["p"])
    p_value = "" if np.isnan(p) else f", p = {p:.2g} (corrected resampled t-test)"
    verdict = (
        f"{score}. Mean difference to the champion {champion.title}: {difference:+.4f} over "
        f"{test['n']} replicates{p_value}.{more_accurate}"
    )
    return difference > 0, verdict


def is_same_method(method: MethodSpec, spec: TrialSpec) -> bool:
    """Return whether a method has the selector and hyperparameters of a trial."""
    return method.selector == spec.selector and method.params == spec.params
