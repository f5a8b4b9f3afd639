"""Candidates for promotion: the best trial of a search, or the Pareto front of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.metrics.stability import nogueira_stability
from mmlab.spec.search import SearchSpec
from mmlab.tracking import StudyRun, TrackingStore, TrialRecord, read_replicates
from mmlab.trial.run import final_objective

#: Objectives of a Pareto front: the metric of a trial, and whether to maximise or minimise it.
OBJECTIVES = {
    "accuracy": ("validation/knn/accuracy", "max"),
    "reconstruction": ("validation/linear/l2", "min"),
    "stability": ("stability/nogueira", "max"),
    "panel_size": ("n_markers", "min"),
}
#: Maximum number of candidates that are evaluated.
_MAX_CANDIDATES = 8


def rank_candidates(
    study: StudyRun[SearchSpec],
    records: Sequence[TrialRecord],
    cells: Cells,
    objectives: Sequence[str],
) -> pd.DataFrame:
    """Return the candidates for promotion, the highest validation score first.

    Parameters
    ----------
    records
        Complete trials of the searched method.
    objectives
        Names from :data:`OBJECTIVES`. The candidates are the trials on their Pareto front, at
        most eight, and always include the trial with the highest validation score. Without
        objectives, this trial is the only candidate.

    Returns
    -------
    One row per candidate. Columns: digest, method (its title in tables), score (validation
    score), one column per objective, and one per hyperparameter.

    Raises
    ------
    UserError
        An objective is unknown, or ``stability`` is requested for trials of one replicate.
    """
    unknown = [name for name in objectives if name not in OBJECTIVES]
    if unknown:
        raise UserError(
            f"objective {unknown[0]!r} is not among {', '.join(OBJECTIVES)}. Separate several "
            "objectives by commas."
        )
    score_metric = final_objective(study.spec.search.selector)
    rows = []
    for record in records:
        row: dict[str, Any] = {"digest": record.digest, "method": candidate_title(record)}
        row["score"] = record.metrics[score_metric]
        for name in objectives:
            row[name] = _objective_value(study.store, record, name, len(cells.genes))
        rows.append(row | record.spec.params)
    table = pd.DataFrame(rows).sort_values("score", ascending=False, kind="stable")
    if not objectives:
        return table.head(1).reset_index(drop=True)
    signs = [1.0 if OBJECTIVES[name][1] == "max" else -1.0 for name in objectives]
    values = table[list(objectives)].to_numpy(dtype=float) * signs
    front = table[pareto_front(values)]
    # Only the trial with the highest score can be promoted. It is not on the front if the
    # objectives leave out the score.
    chosen = pd.concat([table.head(1), front]).drop_duplicates("digest")
    return chosen.head(_MAX_CANDIDATES).reset_index(drop=True)


def pareto_front(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask of the Pareto-optimal rows, shape (n_rows,).

    A row is dominated if another row is at least as high in every column and higher in one. NaN
    counts as the lowest value.

    Parameters
    ----------
    values
        Shape (n_rows, n_objectives); higher is better.
    """
    known = np.nan_to_num(values, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    at_least_as_high = (known[:, None] >= known[None]).all(axis=2)
    higher = (known[:, None] > known[None]).any(axis=2)
    return np.asarray(~(at_least_as_high & higher).any(axis=0))


def _objective_value(store: TrackingStore, record: TrialRecord, name: str, n_genes: int) -> float:
    if name == "panel_size":
        return float(record.spec.n_markers)
    if name != "stability":
        return record.metrics[OBJECTIVES[name][0]]
    panels = [np.asarray(row["panel"]) for row in read_replicates(store, record.run_id)]
    if len(panels) < 2:
        raise UserError(
            f"objective stability needs at least two replicates per trial; trial "
            f"{record.digest[:8]} has {len(panels)}. Leave out this objective, or search again "
            "with more replicates."
        )
    return nogueira_stability(panels, n_genes).value


def candidate_title(record: TrialRecord) -> str:
    """Return the name of a candidate in tables: selector and first digits of the digest."""
    return f"{record.selector} {record.digest[:8]}"
