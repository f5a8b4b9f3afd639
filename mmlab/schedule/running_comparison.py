"""A comparison in progress: planned trials, finished replicates, and what is still to compute."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from mmlab.comparison.panel_umaps import panel_umaps
from mmlab.comparison.result_table import ResultFile, ResultRow, make_row, row_from_parquet
from mmlab.comparison.significance import leading_method
from mmlab.datasets.cells import Cells
from mmlab.preprocessing.recipes import first_replicate_zscore
from mmlab.schedule.cluster import cluster
from mmlab.schedule.comparison_plan import (
    ComparisonResult,
    PlannedTrial,
    ResultTables,
    tabulate,
)
from mmlab.schedule.progress import ComparisonProgress
from mmlab.schedule.study_size import describe_size
from mmlab.schedule.submit import submit_trials
from mmlab.schedule.trial_groups import group_trials
from mmlab.selectors import control_methods
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.resources import Resources
from mmlab.spec.trial import TrialSpec
from mmlab.system.interruption import Interruption
from mmlab.tracking import (
    EndedTrial,
    MethodRun,
    Outbox,
    StudyRun,
    find_finished_replicates,
    log_leader,
)


@dataclass
class RunningComparison:
    """A comparison in progress: the planned trials and the results so far."""

    study: StudyRun[ComparisonSpec]
    cells: Cells
    trials: list[PlannedTrial]
    rows: ResultFile
    outbox: Outbox
    console: Console

    def __post_init__(self) -> None:
        methods = self.study.spec.methods
        self.planned = {trial.digest: trial for trial in self.trials}
        self.runs = {method.title: MethodRun.open(self.study, method) for method in methods}
        self.failed: dict[str, str] = {}

    def load_finished(self) -> None:
        """Add the finished replicates of the outbox and the store to those of the results file."""
        for ended in self.outbox.unsent.all():
            if ended.result is not None:
                self._add(ended)
        missing = self.planned.keys() - self.rows.by_digest.keys()
        store, experiment = self.study.store, self.study.experiment_id
        for digest, row in find_finished_replicates(store, experiment, missing):
            self._add_row(self.planned[digest].spec, digest, row)

    def compute(self, resources: Resources, interruption: Interruption) -> None:
        """Run the missing trials on Ray."""
        missing = [t for digest, t in self.planned.items() if digest not in self.rows.by_digest]
        if not missing:
            return
        groups = group_trials(missing, resources)
        group_configs = [
            {
                "trials": [trial.spec.model_dump(mode="json") for trial in group],
                "method": group[0].method.title,
                "parent": self.runs[group[0].method.title].run_id,
            }
            for group in groups
        ]
        with cluster(resources, interruption, self.console) as ray_cluster:
            finished = [
                (self.planned[digest].method.title, row)
                for digest, row in self.rows.by_digest.items()
                if digest in self.planned
            ]
            size = describe_size(groups, finished, ray_cluster.slots)
            self.console.print(size, highlight=False, soft_wrap=True)
            n_missing = dict(Counter(trial.method.title for trial in missing))
            name = self.study.name
            progress = ComparisonProgress(
                self.console,
                name,
                len(missing),
                n_missing=n_missing,
                slots=ray_cluster.slots,
                unsent=self.outbox.unsent.__len__,
            )
            with progress:
                submit_trials(name, group_configs, self.cells, progress, self._record, ray_cluster)
        self.rows.write()

    def summarise(self, unsent: int) -> ComparisonResult:
        """Summarise all finished replicates; log the tables if the store has all trials.

        ``unsent`` is the number of ended trials that the tracking store has not accepted.
        """
        spec = self.study.spec
        tables = tabulate(spec, self.trials, self.rows.by_digest, self.cells)
        umaps: dict[str, Figure] = {}
        if spec.umap:
            self.console.print("drawing UMAPs of the panels", highlight=False)
            zscore = first_replicate_zscore(self.trials[0].spec, self.cells)
            umaps = panel_umaps(spec, tables.replicates, self.cells, zscore)
        leader = leading_method(tables.replicates, control_methods())
        if not unsent:
            for title, run in self.runs.items():
                self._finish(title, run, tables, umaps.get(title))
            if leader is not None:
                of_leader = tables.of_method(leader)
                log_leader(self.study, leader, of_leader.summary, of_leader.extra_metrics)
        return ComparisonResult(
            self.study,
            self.trials,
            *tables,
            self.failed,
            unsent,
            waiting_in=self.outbox.unsent.place,
            rows_error=self.rows.error,
            umaps=umaps,
            leader=leader,
        )

    def _finish(
        self, title: str, run: MethodRun, tables: ResultTables, umap: Figure | None
    ) -> None:
        """Log a method's part of the tables and close its run."""
        own = tables.of_method(title)
        records: list[Any] = own.replicates.to_dict(orient="records")
        rows = [row_from_parquet(row) for row in records]
        run.finish(rows, own.summary, own.extra_metrics, self.cells, umap)

    def _record(self, ended: EndedTrial) -> None:
        self.outbox.put(ended)
        self._add(ended)

    def _add(self, ended: EndedTrial) -> None:
        trial = self.planned.get(ended.digest)
        if trial is None:
            return
        if ended.result is None:
            self.failed[trial.title(self.study.spec)] = ended.reason
            return
        (replicate,) = ended.result.replicates.to_dict(orient="records")
        row = {str(name): value for name, value in replicate.items()}
        self._add_row(ended.spec, ended.digest, row)

    def _add_row(self, spec: TrialSpec, digest: str, replicate: ResultRow) -> None:
        self.rows.add(make_row(spec, digest, self.cells.fingerprint, replicate))
