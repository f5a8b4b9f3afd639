"""The objective of a search, and the metrics of an epoch of a trial."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mmlab.selectors import get_selector

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch
    from mmlab.trial.result import TrialResult

#: The metric that a search maximises: the score of the hard panel on the validation cells.
OBJECTIVE = "validation/score"

#: The metric by which the runs of a study are sorted in MLflow; higher is better. Of a trial of a
#: search it is :data:`OBJECTIVE`, of other trials :func:`knn_accuracy`.
SCORE = "score"


def final_objective(selector: str) -> str:
    """Return the metric that equals :data:`OBJECTIVE` at the end of a search trial."""
    supervised = get_selector(selector).supervised
    return "validation/knn/accuracy" if supervised else "validation/linear/explained_variance"


def knn_accuracy(result: TrialResult) -> float:
    """Return the kNN accuracy of a result: on the validation cells in a search, else on test cells.

    It is NaN if the result has none.
    """
    prefix = "validation/" if result.spec.protocol == "search" else ""
    return result.metrics.get(f"{prefix}knn/accuracy", math.nan)


def mean_epoch(epochs: list[Epoch]) -> dict[str, float]:
    """Return the metrics of an epoch as means over the replicates, a row of the history.

    Parameters
    ----------
    epochs
        The epoch of each replicate; of one that stopped early, its last epoch. Number and
        temperature are those of the replicate that is furthest.
    """

    def mean(values: list[float | None]) -> float:
        known = [v for v in values if v is not None]
        return float(np.mean(known)) if known else math.nan

    return {
        "epoch": max(e.epoch for e in epochs),
        "temperature": max(epochs, key=lambda e: e.epoch).temperature,
        "train/loss": mean([e.train_loss for e in epochs]),
        "validation/loss": mean([e.validation_loss for e in epochs]),
        OBJECTIVE: mean([e.validation_score for e in epochs]),
    }
