"""Run or resume a comparison: methods x settings x replicates, each computed exactly once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from mmlab.comparison.panel_umaps import panel_umaps
from mmlab.comparison.result_table import ResultFile, ResultRow, make_row, row_from_parquet
from mmlab.comparison.robustness import robustness_metrics
from mmlab.comparison.significance import leading_method
from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.preprocessing.recipes import first_replicate_zscore
from mmlab.schedule.cluster import cluster, require_machine
from mmlab.schedule.comparison_plan import (
    ComparisonResult,
    PlannedTrial,
    ResultTables,
    comparison_name,
    group_trials,
    plan_trials,
    tabulate,
)
from mmlab.schedule.progress import ComparisonProgress
from mmlab.schedule.rescue import rescue_replicates
from mmlab.schedule.study_size import check_size, describe_size
from mmlab.schedule.submit import submit_trials
from mmlab.selectors import control_methods
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.resources import Resources
from mmlab.spec.trial import TrialSpec
from mmlab.system.interruption import (
    Interruption,
    StudyInterruptedError,
    interruptible,
)
from mmlab.tracking import (
    EndedTrial,
    MethodRun,
    Outbox,
    StudyRun,
    TrackingStore,
    close_abandoned,
    constraint_params,
    create_study,
    find_finished_replicates,
    lock_results_file,
    lock_study,
    log_leader,
    reclaim_study,
)

#: Seconds without progress after which the end of a study stops waiting for the tracking store.
_DRAIN_TIMEOUT = 30.0


def run_comparison(
    spec: ComparisonSpec,
    store: TrackingStore,
    resources: Resources,
    console: Console,
    *,
    results_file: Path | None = None,
    command: str = "",
    parent_run_id: str = "",
) -> ComparisonResult:
    """Compute the missing trials of a comparison, and summarise all of its trials.

    The same specification on the same cells is the same study: a second call resumes it.
    Replicates that are finished in ``results_file`` or in any study of the tracking store are not
    computed again. Each result is written to disk before it is sent to the store. If the store
    does not respond, the trials continue; the results are sent once it responds again, or when
    the study is resumed.

    Parameters
    ----------
    results_file
        Parquet file of finished replicates: read at the start, updated as replicates finish.
    command
        Command line of the user, recorded in the study's run.
    parent_run_id
        MLflow run below which a new study is nested; empty: none.

    Raises
    ------
    UserError
        ``spec`` cannot be run (nothing is written to the store in this case), or another process
        is running the study or uses ``results_file``.
    """
    check_size(spec.n_trials, store)
    cells = load_cells(spec.data)
    trials = plan_trials(spec, cells)
    name = comparison_name(spec, cells)
    require_machine(resources)
    store.initialise()
    with (
        lock_study(store, name),
        lock_results_file(results_file),
        interruptible() as interruption,
    ):
        rows = ResultFile.read(results_file, {cells.fingerprint: len(cells.genes)})
        close_abandoned(store)
        study = _open_study(store, name, spec, cells, command, parent_run_id)
        outbox, complete = Outbox(study, cells), False
        try:
            with outbox:
                comparison = _Comparison(study, cells, trials, rows, outbox, console)
                comparison.load_finished()
                try:
                    comparison.compute(resources, interruption)
                    result = comparison.summarise(outbox.drain(_DRAIN_TIMEOUT))
                finally:
                    rescued = rescue_replicates(study, outbox, rows, console)
            result = replace(result, rescued=rescued)
            complete = not result.failed
        except KeyboardInterrupt as interrupt:
            raise StudyInterruptedError(study.name, interruption.reason) from interrupt
        finally:
            # A store that does not respond would block here; resuming the study closes its runs.
            if not outbox.last_error:
                study.finish(complete)
    return result


def _open_study(
    store: TrackingStore,
    name: str,
    spec: ComparisonSpec,
    cells: Cells,
    command: str,
    parent_run_id: str,
) -> StudyRun[ComparisonSpec]:
    """Claim the study if it exists, else create it."""
    existing = reclaim_study(store, name, spec)
    if existing is not None:
        return existing
    params = {
        "methods": ", ".join(method.title for method in spec.methods),
        "n_markers": ", ".join(map(str, spec.n_markers)),
        "replicates": spec.replicates,
        "recipe": spec.recipe,
        "protocol": spec.protocol,
        "seed": spec.seed,
        **constraint_params(spec),
    }
    if spec.levels:
        params |= {"noise": spec.noise, "noise_level": ", ".join(map(str, spec.levels))}
    params |= {name: ", ".join(map(str, values)) for name, values in spec.over.items()}
    return create_study(store, name, spec, cells, params, command, parent_run_id)


@dataclass
class _Comparison:
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
        for ended in self.outbox.unsent():
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
        with cluster(resources, interruption) as ray_cluster:
            finished = [row for d, row in self.rows.by_digest.items() if d in self.planned]
            size = describe_size(groups, finished, ray_cluster.slots)
            self.console.print(size, highlight=False, soft_wrap=True)
            n_missing = dict(Counter(trial.method.title for trial in missing))
            name = self.study.name
            progress = ComparisonProgress(
                self.console, name, len(missing), n_missing=n_missing, slots=ray_cluster.slots
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
                _, summary, extra_metrics = _metrics_of(leader, tables)
                log_leader(self.study, leader, summary, extra_metrics)
        return ComparisonResult(
            self.study,
            self.trials,
            *tables,
            self.failed,
            unsent,
            rows_error=self.rows.error,
            umaps=umaps,
            leader=leader,
        )

    def _finish(
        self, title: str, run: MethodRun, tables: ResultTables, umap: Figure | None
    ) -> None:
        """Log a method's part of the tables and close its run."""
        rows, summary, extra_metrics = _metrics_of(title, tables)
        records: list[Any] = rows.to_dict(orient="records")
        run.finish(
            [row_from_parquet(row) for row in records], summary, extra_metrics, self.cells, umap
        )

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


def _metrics_of(
    title: str, tables: ResultTables
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """Return a method's replicates, its summary, and its metrics over all settings."""
    rows, summary, curves = (t[t["method"] == title] if len(t) else t for t in tables)
    return rows, summary, robustness_metrics(curves) if len(curves) else {}
