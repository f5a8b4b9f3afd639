"""Finished replicates in the tracking store."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mmlab.comparison.result_table import ResultFile, make_row, summarise_rows
from mmlab.datasets.cells import Cells
from mmlab.report.manifest import finite_metrics
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.tracking import TrackingStore, find_finished_replicates
from mmlab.tracking.trial_run import run_tracked


def test_values_per_cell_are_kept_in_the_store_and_in_a_file_and_are_no_metrics(
    tiny_cells: Cells, tmp_path: Path
) -> None:
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    spec = TrialSpec(
        data=DataSpec(name="tiny"), selector="scanpy_t_test", n_markers=5, protocol="locked"
    )
    run_id, result = run_tracked(store, spec, tiny_cells)
    (expected,) = result.replicates.to_dict(orient="records")
    names = [name for name in map(str, expected) if name.startswith("per_cell/")]
    assert len(names) == 3

    experiment = store.experiment(tiny_cells.name)
    ((digest, row),) = find_finished_replicates(store, experiment, {result.digest})
    file = ResultFile.read(tmp_path / "rows.parquet")
    file.add(make_row(result.spec, digest, result.fingerprint, row))
    read = ResultFile.read(tmp_path / "rows.parquet").by_digest[result.digest]
    for name in names:
        assert row[name] == read[name] == expected[name]
        assert len(read[name]) == 24

    table = pd.DataFrame([read | {"method": "t-test", "setting": "k=5"}])
    summary = summarise_rows(table, 40).set_index("metric")["mean"]
    assert summary["knn/accuracy"] == pytest.approx(sum(read["per_cell/knn/accuracy"]) / 24)
    logged = store.client.get_run(run_id).data.metrics
    for metrics in (summary.index, finite_metrics(read), result.metrics, logged):
        assert "knn/accuracy" in metrics
        assert not any(name.startswith("per_cell/") for name in metrics)
