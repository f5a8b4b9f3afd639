"""The configurations of a search that are worth judging: the best one, or a Pareto front."""

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
from mmlab.tracking import StudyRun, TrackingStore, TrialRecord, trial_rows
from mmlab.trial.run import final_objective

#: What a search's configurations are weighed by: metric of its trials, and the better direction.
OBJECTIVES = {
    "accuracy": ("validation/knn/accuracy", "max"),
    "reconstruction": ("validation/linear/l2", "min"),
    "stability": ("stability/nogueira", "max"),
    "panel_size": ("n_markers", "min"),
}
#: Configurations of a Pareto front that are judged, at most.
_MOST_CANDIDATES = 8


def rank_candidates(
    study: StudyRun[SearchSpec],
    records: Sequence[TrialRecord],
    cells: Cells,
    objectives: Sequence[str],
) -> pd.DataFrame:
    """The configurations to judge, best validation score first; see :func:`promote`."""
    unknown = [name for name in objectives if name not in OBJECTIVES]
    if unknown:
        raise UserError(
            f"objective {unknown[0]!r} is not among {', '.join(OBJECTIVES)}; give several "
            "separated by commas."
        )
    best = final_objective(study.spec.search.selector)
    rows = []
    for record in records:
        row: dict[str, Any] = {"digest": record.digest, "method": candidate_title(record)}
        row["score"] = record.metrics[best]
        for name in objectives:
            row[name] = _objective(study.store, record, name, len(cells.genes))
        rows.append(row | record.spec.params)
    table = pd.DataFrame(rows).sort_values("score", ascending=False, kind="stable")
    if not objectives:
        return table.head(1).reset_index(drop=True)
    signs = [1.0 if OBJECTIVES[name][1] == "max" else -1.0 for name in objectives]
    values = table[list(objectives)].to_numpy(dtype=float) * signs
    front = table[pareto_front(values)]
    # The one that stands for promotion is judged whether or not the objectives hold its score.
    chosen = pd.concat([table.head(1), front]).drop_duplicates("digest")
    return chosen.head(_MOST_CANDIDATES).reset_index(drop=True)


def pareto_front(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows no other row beats: as good in every column (higher is better), better in one.

    NaN counts as the worst value.
    """
    known = np.nan_to_num(values, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    as_good = (known[:, None] >= known[None]).all(axis=2)
    better = (known[:, None] > known[None]).any(axis=2)
    return np.asarray(~(as_good & better).any(axis=0))


def _objective(store: TrackingStore, record: TrialRecord, name: str, n_genes: int) -> float:
    if name == "panel_size":
        return float(record.spec.n_markers)
    if name != "stability":
        return record.metrics[OBJECTIVES[name][0]]
    panels = [np.asarray(row["panel"]) for row in trial_rows(store, record.run_id)]
    if len(panels) < 2:
        raise UserError("objective stability needs a search with at least two replicates a trial.")
    return nogueira_stability(panels, n_genes).value


def candidate_title(record: TrialRecord) -> str:
    """Name of a search's configuration in tables."""
    return f"{record.selector} {record.digest[:8]}"
