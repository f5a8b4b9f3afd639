"""A method of a comparison as a run between the study and its replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmlab import figures
from mmlab.config import BenchmarkSpec, MethodSpec
from mmlab.datasets.base import Cells
from mmlab.results import borda_panel, panel_table
from mmlab.rows import Row
from mmlab.tracking.study import StudyRun
from mmlab.tracking.trial import spec_params


@dataclass(frozen=True)
class MethodRun:
    """The run of one method at one panel size: mean and spread over its replicates."""

    study: StudyRun[BenchmarkSpec]
    run_id: str
    method: MethodSpec
    n_markers: int

    @classmethod
    def open(cls, study: StudyRun[BenchmarkSpec], method: MethodSpec, n_markers: int) -> MethodRun:
        """The run that exists in the study, or a new one."""
        condition = (
            f"tags.`mmlab.study` = '{study.name}' and tags.`mmlab.kind` = 'method' and "
            f"tags.`mmlab.method` = '{method.title}' and params.n_markers = '{n_markers}'"
        )
        for run in study.store.search(condition, [study.experiment_id]):
            study.store.reopen(run.info.run_id)
            return cls(study, run.info.run_id, method, n_markers)
        tags = {
            "mmlab.kind": "method",
            "mmlab.study": study.name,
            "mmlab.method": method.title,
            "mmlab.selector": method.selector,
            "mlflow.parentRunId": study.run_id,
        }
        sized = f" k={n_markers}" if len(study.spec.n_markers) > 1 else ""
        run_id = study.store.create_run(study.experiment_id, method.title + sized, tags)
        params = spec_params(study.spec.trial(method, n_markers, 0))
        del params["replicates"]
        study.store.log_params(run_id, params)
        return cls(study, run_id, method, n_markers)

    def finish(self, rows: Sequence[Row], summary: pd.DataFrame, cells: Cells) -> None:
        """Write means, consensus panel and figures, and close the run.

        Parameters
        ----------
        rows
            Its finished replicates; the run is FINISHED if these are all, else KILLED.
        summary
            Its part of :func:`mmlab.rows.summarise_rows`.
        """
        store = self.study.store
        metrics: dict[str, float] = {}
        for row in summary.to_dict(orient="records"):
            metrics |= {row["metric"]: row["mean"], f"{row['metric']}_std": row["std"]}
        store.log_metrics(self.run_id, metrics | {"replicates": len(rows)}, 0)
        if rows:
            store.log_files(self.run_id, lambda folder: self._write(rows, cells, folder))
        asked = self.method.replicates or self.study.spec.replicates
        store.close(self.run_id, "FINISHED" if len(rows) >= asked else "KILLED")

    def _write(self, rows: Sequence[Row], cells: Cells, folder: Path) -> None:
        pd.DataFrame(rows).to_parquet(folder / "replicates.parquet", index=False)
        panels = [np.asarray(row["panel"], dtype=np.int64) for row in rows]
        panel, scores = borda_panel(panels, len(cells.genes), len(panels[0]))
        table = panel_table(panel, scores, cells.genes)
        table.to_parquet(folder / "markers.parquet", index=False)
        table.to_csv(folder / "panel.csv", index=False)
        (folder / "figures").mkdir()
        for key in (key for key in rows[0] if key.startswith("confusion/")):
            classifier = key.removeprefix("confusion/")
            counts = np.sum([np.asarray(row[key]) for row in rows], axis=0)
            title = f"{self.method.title} on {cells.name}: {classifier.replace('_', ' ')}"
            figure = figures.confusion_matrix(counts, cells.classes, f"{title}, test cells")
            figure.savefig(folder / "figures" / f"confusion_{classifier}.png")
