"""A comparison: a grid of methods, settings and replicates, each computed exactly once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mmlab.comparison.result_table import ResultFile, ResultRow, make_row, row_from_parquet
from mmlab.comparison.robustness import robustness_metrics
from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.preprocessing.expression import ZScores
from mmlab.preprocessing.recipes import first_replicate_zscore
from mmlab.schedule.cluster import cluster, require_machine
from mmlab.schedule.comparison_plan import (
    ComparisonResult,
    PlannedTrial,
    ResultTables,
    group_trials,
    plan_trials,
    tabulate,
)
from mmlab.schedule.progress import ComparisonProgress
from mmlab.schedule.study_size import check_size, describe_size
from mmlab.schedule.submit import submit_trials
from mmlab.schedule.tune_run import StudyInterruptedError, sigterm_as_interrupt
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.resources import Resources
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import (
    EndedTrial,
    MethodRun,
    Outbox,
    StudyRun,
    TrackingStore,
    claim_study,
    close_abandoned,
    constraint_params,
    create_study,
    find_study,
    finished_rows,
    lock_study,
)

#: Seconds that the end of a study waits for a tracking store that takes nothing.
_PATIENCE = 30.0


def run_comparison(
    spec: ComparisonSpec,
    store: TrackingStore,
    resources: Resources,
    console: Console,
    *,
    rows_file: Path | None = None,
    command: str = "",
) -> ComparisonResult:
    """Compute what is missing of a comparison, and summarise all of it.

    The same specification on the same cells is the same study: started again, it goes on. A
    replicate that any study of the store, or ``rows_file``, holds as finished is taken from
    there. What is finished is on disk before it is sent to the store: a store that goes away
    stops nothing, and gets everything when it is back, or when the study is started again.

    Parameters
    ----------
    rows_file
        Parquet file of finished replicates, read first and brought up to date as they come.

    Raises
    ------
    UserError
        Anything in ``spec`` that cannot be run (then the store is left as it was), or another
        process is at work on the study.
    """
    cells = load_cells(spec.data)
    grid = plan_trials(spec, cells)
    rows = ResultFile.read(rows_file)
    name = f"{spec.study}-{cells.name}-{spec.digest(cells.fingerprint)[:8]}"
    check_size(len(grid), store)
    require_machine(resources)
    store.initialise()
    with lock_study(store, name):
        close_abandoned(store)
        study = _open(store, name, spec, cells, command)
        outbox, complete = Outbox(study, cells), False
        try:
            with outbox:
                work = _Comparison(study, cells, grid, rows, outbox, console)
                work.load_finished()
                work.compute(resources)
                result = work.summarise(outbox.drain(_PATIENCE))
            complete = not result.failed
        except KeyboardInterrupt as interrupt:
            raise StudyInterruptedError(study.name) from interrupt
        finally:
            # A store that is away would hold up the end; whoever goes on closes what is open.
            if not outbox.trouble:
                study.finish(complete)
    return result


def _open(
    store: TrackingStore, name: str, spec: ComparisonSpec, cells: Cells, command: str
) -> StudyRun[ComparisonSpec]:
    found = find_study(store, name)
    if found is not None:
        study = found.with_spec(spec)
        claim_study(study)
        return study
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
    return create_study(store, name, spec, cells, params, command)


@dataclass
class _Comparison:
    """A comparison at work: what it asks, and what is known so far."""

    study: StudyRun[ComparisonSpec]
    cells: Cells
    grid: list[PlannedTrial]
    rows: ResultFile
    outbox: Outbox
    console: Console

    def __post_init__(self) -> None:
        methods = self.study.spec.methods
        self.wanted = {trial.digest: trial for trial in self.grid}
        self.runs = {method.title: MethodRun.open(self.study, method) for method in methods}
        self.failed: dict[str, str] = {}

    def load_finished(self) -> None:
        """Add what is finished: in the rows file, waiting on disk, in the store."""
        for ended in self.outbox.waiting():
            if ended.result is not None:
                self._add(ended)
        missing = self.wanted.keys() - self.rows.by_digest.keys()
        store, experiment = self.study.store, self.study.experiment_id
        for digest, row in finished_rows(store, experiment, missing):
            self._add_row(self.wanted[digest].spec, digest, row)

    def compute(self, resources: Resources) -> None:
        """Run the missing cells of the grid."""
        missing = [t for digest, t in self.wanted.items() if digest not in self.rows.by_digest]
        if not missing:
            return
        parts = group_trials(missing, resources)
        described = [
            {
                "trials": [trial.spec.model_dump(mode="json") for trial in part],
                "method": part[0].method.title,
                "parent": self.runs[part[0].method.title].run_id,
            }
            for part in parts
        ]
        with cluster(resources) as slots, sigterm_as_interrupt():
            known = [row for d, row in self.rows.by_digest.items() if d in self.wanted]
            self.console.print(describe_size(parts, known, slots), highlight=False, soft_wrap=True)
            waiting = dict(Counter(trial.method.title for trial in missing))
            progress = ComparisonProgress(
                self.console, self.study.name, len(missing), waiting=waiting, slots=slots
            )
            with progress:
                submit_trials(
                    self.study.name, described, self.cells, progress, self._keep, resources, slots
                )
        self.rows.write()

    def summarise(self, unsent: int) -> ComparisonResult:
        """Tables of all that is finished; the store gets them, if it has the trials."""
        tables = tabulate(self.study.spec, self.grid, self.rows.by_digest, self.cells)
        if not unsent:
            zscore = None
            if self.study.spec.umap:
                self.console.print("drawing UMAPs of the panels", highlight=False)
                zscore = first_replicate_zscore(self.grid[0].spec, self.cells)
            for title, run in self.runs.items():
                self._finish(title, run, tables, zscore)
        return ComparisonResult(self.study, self.grid, *tables, self.failed, unsent)

    def _finish(
        self, title: str, run: MethodRun, tables: ResultTables, zscore: ZScores | None
    ) -> None:
        """Close a method's run with its part of the tables."""
        rows, summary, curves = (t[t["method"] == title] if len(t) else t for t in tables)
        own: list[Any] = rows.to_dict(orient="records")
        extra = robustness_metrics(curves) if len(curves) else {}
        run.finish([row_from_parquet(row) for row in own], summary, extra, self.cells, zscore)

    def _keep(self, ended: EndedTrial) -> None:
        self.outbox.put(ended)
        self._add(ended)

    def _add(self, ended: EndedTrial) -> None:
        trial = self.wanted.get(ended.digest)
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
