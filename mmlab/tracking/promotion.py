"""The MLflow run of a promotion, nested under its search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mmlab.model import Model
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import TrialSpec
from mmlab.tracking.metric_points import metric_points
from mmlab.tracking.model_registry import Champion, register_champion
from mmlab.tracking.run_owner import owner_tags
from mmlab.tracking.study_run import StudyRun


def record_promotion(
    study: StudyRun[SearchSpec],
    comparisons: Sequence[StudyRun[Any]],
    candidates: pd.DataFrame,
    winner: str,
    verdict: str,
    model: Model | None,
    spec: TrialSpec,
    digest: str,
) -> tuple[str, Champion | None]:
    """Log the outcome of a promotion and, if there is a new champion, register its model.

    Parameters
    ----------
    study
        The search.
    comparisons
        The studies that evaluated the candidates: on the held-out test set, and under the
        paper's protocol.
    candidates
        Table of the evaluated candidates.
    winner
        Name of the champion in the comparisons.
    verdict
        Why it is the champion; the first line is the headline.
    model
        Model to register as the champion; None keeps the current champion.
    spec, digest
        The trial that chose the model's panel.

    Returns
    -------
    Id of the run, and the new champion; None if there is no new one.
    """
    store = study.store
    tags = {
        "mmlab.kind": "promotion",
        "mmlab.study": study.name,
        "mmlab.comparisons": ",".join(comparison.name for comparison in comparisons),
        "mmlab.winner": winner,
        "mmlab.verdict": verdict,
        "mlflow.parentRunId": study.run_id,
        "mlflow.note.content": verdict.replace("\n", "\n\n"),
        **owner_tags(),
    }
    run_id = store.create_run(study.experiment_id, f"promotion {digest[:8]}", tags)
    store.log_files(
        run_id, lambda folder: candidates.to_parquet(folder / "candidates.parquet", index=False)
    )
    champion = None
    if model is not None:
        accuracy = {"locked/knn/accuracy": model.about["locked_knn_accuracy"]}
        store.log_points(run_id, metric_points(accuracy, 0))
        champion = register_champion(store, run_id, model, spec, digest, study.name)
    store.close(run_id, "FINISHED")
    return run_id, champion


def find_promotions(study: StudyRun[Any]) -> list[dict[str, Any]]:
    """Return the promotions of a search, oldest first.

    Each has run_id, verdict (the first line is the headline), winner (name of the champion in the
    comparisons; empty if an older version of mmlab promoted) and comparisons (their names).
    """
    tags = {"mmlab.study": study.name, "mmlab.kind": "promotion"}
    return [
        {
            "run_id": run.info.run_id,
            "verdict": run.data.tags["mmlab.verdict"],
            "winner": run.data.tags.get("mmlab.winner", ""),
            "comparisons": run.data.tags["mmlab.comparisons"].split(","),
        }
        for run in study.store.search(tags, status="FINISHED", experiment_ids=[study.experiment_id])
    ]
