"""A method of a comparison as a run between the study and its replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlab import figures
from mmlab.comparison.result_table import ResultRow
from mmlab.constraints.measure import consensus_constraints
from mmlab.datasets.cells import Cells
from mmlab.figures.embedding import cells_to_embed, umap_coordinates
from mmlab.preprocessing.expression import ZScores, to_dense
from mmlab.spec.comparison import ComparisonSpec, MethodSpec
from mmlab.tracking.store import metric_points
from mmlab.tracking.study import StudyRun
from mmlab.tracking.trial import spec_params
from mmlab.trial.result import CONFUSION, borda_panel, panel_table, sum_matrices


@dataclass(frozen=True)
class MethodRun:
    """The run of one method: mean and spread over its replicates, a step a setting."""

    study: StudyRun[ComparisonSpec]
    run_id: str
    method: MethodSpec

    @classmethod
    def open(cls, study: StudyRun[ComparisonSpec], method: MethodSpec) -> MethodRun:
        """The run that exists in the study, or a new one."""
        condition = (
            f"tags.`mmlab.study` = '{study.name}' and tags.`mmlab.kind` = 'method' and "
            f"tags.`mmlab.method` = '{method.title}'"
        )
        for run in study.store.search(condition, [study.experiment_id]):
            study.store.reopen(run.info.run_id)
            return cls(study, run.info.run_id, method)
        tags = {
            "mmlab.kind": "method",
            "mmlab.study": study.name,
            "mmlab.method": method.title,
            "mmlab.selector": method.selector,
            "mlflow.parentRunId": study.run_id,
        }
        run_id = study.store.create_run(study.experiment_id, method.title, tags)
        settings = study.spec.settings
        params = spec_params(study.spec.trial(method, settings[0], 0))
        del params["replicates"], params["first_replicate"]
        if len(settings) > 1:
            varies = "noise_level" if study.spec.levels else study.spec.axis
            params[varies] = ", ".join(str(setting.value) for setting in settings)
        study.store.log_params(run_id, params)
        return cls(study, run_id, method)

    def finish(
        self,
        rows: Sequence[ResultRow],
        summary: pd.DataFrame,
        extra: dict[str, float],
        cells: Cells,
        zscore: ZScores | None = None,
    ) -> None:
        """Write means, consensus panels and figures, and close the run.

        Parameters
        ----------
        rows
            Its finished replicates; the run is FINISHED if these are all, else KILLED.
        summary
            Its part of :func:`mmlab.comparison.result_table.summarise_rows`.
        extra
            Metrics over all settings.
        cells
            What the panels were chosen on.
        zscore
            Of all cells, shape (n_cells, n_genes), where UMAPs of the first panels are wanted.
        """
        store, settings = self.study.store, self.study.spec.settings
        points = metric_points(extra | {"replicates": len(rows)}, 0)
        for setting in settings:
            metrics: dict[str, float] = {}
            part = summary[summary["setting"] == setting.name] if len(summary) else summary
            for row in part.to_dict(orient="records"):
                metrics |= {row["metric"]: row["mean"], f"{row['metric']}_std": row["std"]}
            points += metric_points(metrics, setting.step)
        store.log_points(self.run_id, points)
        if rows:
            store.log_files(self.run_id, lambda folder: self._write(rows, cells, zscore, folder))
        asked = (self.method.replicates or self.study.spec.replicates) * len(settings)
        store.close(self.run_id, "FINISHED" if len(rows) >= asked else "KILLED")

    def _write(
        self, rows: Sequence[ResultRow], cells: Cells, zscore: ZScores | None, folder: Path
    ) -> None:
        pd.DataFrame(rows).to_parquet(folder / "replicates.parquet", index=False)
        (folder / "figures").mkdir()
        settings = self.study.spec.settings
        own = [(s, [row for row in rows if row["setting"] == s.name]) for s in settings]
        own = [(setting, part) for setting, part in own if part]
        spec = self.study.spec
        tables = [
            _consensus(spec, part, cells).assign(setting=setting.name) for setting, part in own
        ]
        table = pd.concat(tables, ignore_index=True)
        if len(settings) == 1:
            table = table.drop(columns="setting")
        table.to_parquet(folder / "markers.parquet", index=False)
        table.to_csv(folder / "panel.csv", index=False)
        for key in dict.fromkeys(key for row in rows for key in row if key.startswith(CONFUSION)):
            classifier = key.removeprefix(CONFUSION).replace("_", " ")
            figure = figures.confusion_matrices(
                {
                    setting.name: sum_matrices(row[key] for row in part)
                    for setting, part in own
                    if all(key in row for row in part)
                },
                cells.classes,
                f"{self.method.title} on {cells.name}: {classifier}, test cells",
            )
            figure.savefig(folder / "figures" / f"{key.replace('/', '_')}.png")
        if zscore is not None:
            figure = self._maps({setting.name: part[0] for setting, part in own}, cells, zscore)
            figure.savefig(folder / "figures" / "umap.png")

    def _maps(self, firsts: dict[str, ResultRow], cells: Cells, zscore: ZScores) -> Figure:
        """UMAPs of the panel of the first replicate at every setting."""
        seed = self.study.spec.seed
        shown = cells_to_embed(len(zscore), seed)
        seen = to_dense(zscore[shown])
        return figures.cell_maps(
            {name: umap_coordinates(seen[:, row["panel"]], seed) for name, row in firsts.items()},
            cells.y[shown],
            cells.classes,
            f"{self.method.title} on {cells.name}: UMAP of the cells by the panel's genes alone",
        )


def _consensus(spec: ComparisonSpec, rows: Sequence[ResultRow], cells: Cells) -> pd.DataFrame:
    panels = [np.asarray(row["panel"], dtype=np.int64) for row in rows]
    panel_constraints = consensus_constraints(
        spec, cells, panels, [row.get("marked") for row in rows]
    )
    panel, scores = borda_panel(panels, len(cells.genes), len(panels[0]), panel_constraints)
    return panel_table(panel, scores, cells.genes)
