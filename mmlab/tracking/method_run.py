"""The MLflow run of one method of a comparison: between the study's run and those of trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import Metric

from mmlab import figures
from mmlab.comparison.result_table import ResultRow
from mmlab.constraints.measure import consensus_constraints
from mmlab.datasets.cells import Cells
from mmlab.figures.style import save_figure
from mmlab.spec.comparison import ComparisonSpec, MethodSpec, Setting
from mmlab.tracking.metric_points import metric_points
from mmlab.tracking.spec_params import spec_params
from mmlab.tracking.study_run import StudyRun
from mmlab.trial.objective import SCORE
from mmlab.trial.result import CONFUSION_PREFIX, borda_panel, panel_table, sum_matrices


@dataclass(frozen=True)
class MethodRun:
    """Run of one method: mean and spread of its metrics over replicates, one step per setting."""

    study: StudyRun[ComparisonSpec]
    run_id: str
    method: MethodSpec

    @classmethod
    def open(cls, study: StudyRun[ComparisonSpec], method: MethodSpec) -> MethodRun:
        """Reopen the run of a method in a study, or create it if there is none."""
        own_tags = {
            "mmlab.kind": "method",
            "mmlab.study": study.name,
            "mmlab.method": method.title,
        }
        for run in study.store.search(own_tags, experiment_ids=[study.experiment_id]):
            study.store.reopen(run.info.run_id)
            return cls(study, run.info.run_id, method)
        tags = own_tags | {
            "mmlab.selector": method.selector,
            "mlflow.parentRunId": study.run_id,
        }
        run_id = study.store.create_run(study.experiment_id, method.title, tags)
        settings = study.spec.settings
        params = spec_params(study.spec.trial(method, settings[0], 0))
        del params["replicates"], params["first_replicate"]
        if len(settings) > 1:
            varied = "noise_level" if study.spec.levels else study.spec.axis
            params[varied] = ", ".join(str(setting.value) for setting in settings)
        study.store.log(run_id, params=params)
        return cls(study, run_id, method)

    def finish(
        self,
        rows: Sequence[ResultRow],
        summary: pd.DataFrame,
        extra_metrics: dict[str, float],
        cells: Cells,
        umap: Figure | None = None,
    ) -> None:
        """Log means, consensus panels and figures, and close the run.

        Parameters
        ----------
        rows
            Finished replicates of the method; the run becomes FINISHED if none is missing, else
            KILLED.
        summary
            Rows of the method in :func:`mmlab.comparison.result_table.summarise_rows`.
        extra_metrics
            Metrics over all settings.
        cells
            The cells that the panels were chosen on.
        umap
            UMAPs of the method's panels, from :func:`mmlab.comparison.panel_umaps.panel_umaps`.
        """
        store, settings = self.study.store, self.study.spec.settings
        points = method_points(settings, summary, extra_metrics)
        store.log(self.run_id, [*points, *metric_points({"replicates": len(rows)}, 0)])
        if rows:
            store.log_files(self.run_id, lambda folder: self._write(rows, cells, umap, folder))
        n_planned = (self.method.replicates or self.study.spec.replicates) * len(settings)
        store.close(self.run_id, "FINISHED" if len(rows) >= n_planned else "KILLED")

    def _write(
        self, rows: Sequence[ResultRow], cells: Cells, umap: Figure | None, folder: Path
    ) -> None:
        pd.DataFrame(rows).to_parquet(folder / "replicates.parquet", index=False)
        (folder / "figures").mkdir()
        settings = self.study.spec.settings
        by_setting = {s.name: [row for row in rows if row["setting"] == s.name] for s in settings}
        by_setting = {
            setting: replicates for setting, replicates in by_setting.items() if replicates
        }
        spec = self.study.spec
        tables = [
            _consensus(spec, replicates, cells).assign(setting=setting)
            for setting, replicates in by_setting.items()
        ]
        table = pd.concat(tables, ignore_index=True)
        if len(settings) == 1:
            table = table.drop(columns="setting")
        table.to_parquet(folder / "markers.parquet", index=False)
        table.to_csv(folder / "panel.csv", index=False)
        for key in dict.fromkeys(
            key for row in rows for key in row if key.startswith(CONFUSION_PREFIX)
        ):
            matrices = {
                setting: sum_matrices(row[key] for row in replicates)
                for setting, replicates in by_setting.items()
                if all(key in row for row in replicates)
            }
            # Replicates of another study may have classifiers that the others lack.
            if not matrices:
                continue
            classifier = key.removeprefix(CONFUSION_PREFIX).replace("_", " ")
            title = f"{self.method.title} on {cells.name}: {classifier}, test cells"
            figure = figures.confusion_matrices(matrices, cells.classes, title)
            save_figure(figure, folder / "figures" / f"{key.replace('/', '_')}.png")
        if umap is not None:
            save_figure(umap, folder / "figures" / "umap.png")


def method_points(
    settings: Sequence[Setting], summary: pd.DataFrame, extra_metrics: dict[str, float]
) -> list[Metric]:
    """Return the metrics of a method: means and standard deviations at every setting, its score.

    The score is the mean kNN accuracy over the settings. Parameters are those of
    :meth:`MethodRun.finish`.
    """
    if summary.empty:
        return metric_points(extra_metrics, 0)
    score = summary.loc[summary["metric"] == "knn/accuracy", "mean"].mean()
    points = metric_points(extra_metrics | {SCORE: float(score)}, 0)
    for setting in settings:
        metrics: dict[str, float] = {}
        for row in summary[summary["setting"] == setting.name].to_dict(orient="records"):
            metrics |= {row["metric"]: row["mean"], f"{row['metric']}_std": row["std"]}
        points += metric_points(metrics, setting.step)
    return points


def log_leader(
    study: StudyRun[ComparisonSpec],
    title: str,
    summary: pd.DataFrame,
    extra_metrics: dict[str, float],
) -> None:
    """Log the metrics of the leading method to the run of the study, under the same names.

    Parameters
    ----------
    title
        Title of the method, from :func:`mmlab.comparison.significance.leading_method`.
    summary, extra_metrics
        See :meth:`MethodRun.finish`.
    """
    points = method_points(study.spec.settings, summary, extra_metrics)
    meaning = "kNN accuracy on the test cells, mean over settings; higher is better"
    study.store.log(study.run_id, points, tags={"mmlab.leader": title, "mmlab.score": meaning})


def _consensus(spec: ComparisonSpec, rows: Sequence[ResultRow], cells: Cells) -> pd.DataFrame:
    """Return the table of the consensus panel of replicates."""
    panels = [np.asarray(row["panel"], dtype=np.int64) for row in rows]
    panel_constraints = consensus_constraints(
        spec, cells, panels, [row.get("marked") for row in rows]
    )
    panel, scores = borda_panel(panels, len(cells.genes), len(panels[0]), panel_constraints)
    return panel_table(panel, scores, cells.genes, cells.gene_ids)
