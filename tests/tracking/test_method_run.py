"""The run of one method of a comparison."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mmlab.comparison.result_table import make_row
from mmlab.datasets.cells import Cells
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import DataSpec, LabelNoise, TrialSpec
from mmlab.tracking import MethodRun, StudyRun, TrackingStore
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
