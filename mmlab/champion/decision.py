"""Whether a candidate replaces the champion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmlab.comparison.paired_tests import paired_tests
from mmlab.spec.comparison import MethodSpec
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import (
    Champion,
)

#: Decides between a candidate and the champion, on the locked cells.
DECISION_METRIC = "knn/accuracy"


def decide(
    rows: pd.DataFrame, methods: Sequence[MethodSpec], method: MethodSpec, previous: Champion | None
) -> tuple[bool, str]:
    """Whether a candidate is better than the champion on the locked cells, and why.

    Parameters
    ----------
    rows
        A row a replicate and method, of the locked protocol.
    methods
        All that were judged; the champion is among them.
    method
        The candidate.
    """
    means = rows.groupby("method", sort=False)[DECISION_METRIC].mean()
    own = means[method.title]
    score = f"{method.title} has kNN accuracy {own:.4f} on the locked cells"
    above = means[means > own].sort_values(ascending=False)
    listed = ", ".join(f"{name} {value:.4f}" for name, value in above.items())
    ahead = f" Ahead of it: {listed}." if len(above) else ""
    if previous is None:
        return True, f"{score}; there was no champion before.{ahead}"
    rival = next(m for m in methods if is_same_method(m, previous.spec))
    if rival is method:
        return False, f"{score}; it is the champion already.{ahead}"
    both = rows[rows["method"].isin([method.title, rival.title])]
    (test,) = paired_tests(both, DECISION_METRIC, rival.title).to_dict(orient="records")
    difference, p = float(test["mean_difference"]), float(test["t_p"])
    sure = "" if np.isnan(p) else f", p = {p:.2g} (corrected resampled t-test)"
    verdict = (
        f"{score}, {difference:+.4f} against the champion {rival.title} over {test['n']} "
        f"replicates{sure}.{ahead}"
    )
    return difference > 0, verdict


def is_same_method(method: MethodSpec, spec: TrialSpec) -> bool:
    """Whether a method of a comparison has the selector and parameters of a trial."""
    return method.selector == spec.selector and method.params == spec.params
