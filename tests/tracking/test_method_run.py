"""The run of one method of a comparison."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mmlab.comparison.result_table import make_row
from mmlab.datasets.cells import Cells
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import DataSpec, LabelNoise, TrialSpec
from mmlab.tracking import MethodRun, StudyRun, TrackingStore, log_leader
from mmlab.trial.run import run_trial


def test_replicates_of_different_studies_may_hold_different_classifiers(
    tiny_cells: Cells, tmp_path: Path
) -> None:
    """A benchmark may reuse a replicate of a robustness study, which has `clean_` classifiers."""
    data = DataSpec(name="tiny")
    rows = []
    for replicate, level in enumerate((0.0, 0.5)):
        spec = TrialSpec(
            data=data,
            selector="scanpy_t_test",
            n_markers=5,
            first_replicate=replicate,
            noise=LabelNoise(level=level),
        )
        result = run_trial(spec, tiny_cells)
        (measured,) = result.replicates.to_dict(orient="records")
        row = {str(name): value for name, value in measured.items()}
        rows.append(make_row(result.spec, result.digest, result.fingerprint, row))
    for row in rows:
        row["setting"] = "k=5"
    assert "confusion/clean_knn" in rows[1]
    assert "confusion/clean_knn" not in rows[0]
    comparison = ComparisonSpec(data=data, methods=["scanpy_t_test"], n_markers=[5], replicates=2)
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    experiment = store.experiment("tiny")
    study = StudyRun(store, "benchmark-tiny", "", experiment, comparison)
    run_id = store.create_run(experiment, "scanpy_t_test", {})
    run = MethodRun(study, run_id, comparison.methods[0])
    run.finish(rows, pd.DataFrame(), {}, tiny_cells)
    figures = {file.path for file in store.client.list_artifacts(run_id, "figures")}
    assert figures == {"figures/confusion_knn.png", "figures/confusion_random_forest.png"}
    assert store.client.get_run(run_id).info.status == "FINISHED"


def test_the_study_has_the_metrics_of_its_leader_and_both_have_its_score(
    tiny_cells: Cells, tmp_path: Path
) -> None:
    spec = ComparisonSpec(
        study="sweep", data=DataSpec(name="tiny"), methods=["smash"], n_markers=[5, 10]
    )
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    experiment = store.experiment("tiny")
    study = StudyRun(store, "sweep-tiny", store.create_run(experiment, "", {}), experiment, spec)
    summary = pd.DataFrame(
        [
            {"setting": "k=5", "metric": "knn/accuracy", "mean": 0.5, "std": 0.1},
            {"setting": "k=10", "metric": "knn/accuracy", "mean": 0.75, "std": 0.1},
            {"setting": "k=10", "metric": "linear/l2", "mean": 3.0, "std": 0.1},
        ]
    )
    run = MethodRun(study, store.create_run(experiment, "smash", {}), spec.methods[0])
    run.finish([], summary, {"auc/knn/accuracy": 0.6}, tiny_cells)
    log_leader(study, "smash", summary, {"auc/knn/accuracy": 0.6})
    of_method, of_study = (store.client.get_run(r).data for r in (run.run_id, study.run_id))
    assert of_study.metrics["score"] == 0.625
    assert of_method.metrics == of_study.metrics | {"replicates": 0.0}
    history = store.client.get_metric_history(study.run_id, "knn/accuracy")
    assert [(point.step, point.value) for point in history] == [(5, 0.5), (10, 0.75)]
    assert of_study.tags["mmlab.leader"] == "smash"
    assert "higher is better" in of_study.tags["mmlab.score"]
