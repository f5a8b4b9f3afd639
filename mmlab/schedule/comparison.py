"""A comparison: a grid of methods, settings and replicates, each computed exactly once."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from ray import tune
from rich.console import Console

from mmlab.config import TrialSpec
from mmlab.curves import robustness, robustness_metrics, with_clean_classifiers
from mmlab.datasets import load_cells
from mmlab.datasets.base import Cells
from mmlab.errors import UserError
from mmlab.grid import NOISE, ComparisonSpec, MethodSpec, Setting
from mmlab.pipeline import first_zscore, resolve
from mmlab.rows import Row, RowsFile, make_row, summarise_rows
from mmlab.schedule.cluster import Resources, cluster
from mmlab.schedule.driver import FanOut, StudyInterruptedError, sigterm_as_interrupt
from mmlab.schedule.grid import GridActor, GridRecorder
from mmlab.schedule.progress import GridProgress
from mmlab.schedule.size import check_size, size_of
from mmlab.selectors import get_selector
from mmlab.tracking import (
    EndedTrial,
    MethodRun,
    Outbox,
    Store,
    StudyRun,
    claim_study,
    close_abandoned,
    create_study,
    find_study,
    lock_study,
    stored_rows,
)

#: Replicates of a method that share a GPU's every step, at most; they are kept when all are done.
_TRAINED_AS_ONE = 10
#: Seconds that the end of a study waits for a tracking store that takes nothing.
_PATIENCE = 30.0


@dataclass(frozen=True)
class GridTrial:
    """A cell of the grid: one replicate of one method at one setting, resolved."""

    method: MethodSpec
    setting: Setting
    spec: TrialSpec
    digest: str


@dataclass(frozen=True)
class ComparisonResult:
    """What a comparison has found.

    Attributes
    ----------
    study
        The study in its store.
    rows
        A row a finished replicate, see :mod:`mmlab.rows`, with the columns ``method`` and
        ``setting``.
    summary
        From :func:`mmlab.rows.summarise_rows`.
    robustness
        From :func:`mmlab.curves.robustness`; empty where the axis is not noise.
    failed
        Reason by "method, setting, replicate" of the trials that failed.
    unsent
        Trials that the tracking store does not have; they wait on disk.
    """

    study: StudyRun[ComparisonSpec]
    rows: pd.DataFrame
    summary: pd.DataFrame
    robustness: pd.DataFrame
    failed: dict[str, str]
    unsent: int


def plan(spec: ComparisonSpec, cells: Cells) -> list[GridTrial]:
    """All cells of the grid, first replicates first.

    The control that takes all genes is the same trial, of one digest, at every panel size.

    Raises
    ------
    UserError
        Every method or setting that cannot be run.
    """
    found: list[GridTrial] = []
    problems: dict[str, None] = {}
    most = max(method.replicates or spec.replicates for method in spec.methods)
    for replicate in range(most):
        for method in spec.methods:
            if replicate >= (method.replicates or spec.replicates):
                continue
            for setting in spec.settings:
                try:
                    trial = resolve(spec.trial(method, setting, replicate), cells)
                except UserError as error:
                    problems.setdefault(str(error).rstrip("."))
                    continue
                digest = trial.digest(cells.fingerprint)
                found.append(GridTrial(method, setting, trial, digest))
    if problems:
        raise UserError("; ".join(problems) + ".")
    return found


def run_comparison(
    spec: ComparisonSpec,
    store: Store,
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
    grid = plan(spec, cells)
    rows = RowsFile.read(rows_file)
    name = f"{spec.study}-{cells.name}-{spec.digest(cells.fingerprint)[:8]}"
    check_size(len(grid), store)
    store.initialise()
    with lock_study(store, name):
        close_abandoned(store)
        study = _open(store, name, spec, cells, command)
        outbox, complete = Outbox(study, cells), False
        try:
            with outbox:
                work = _Comparison(study, cells, grid, rows, outbox, console)
                work.take_up()
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
    store: Store, name: str, spec: ComparisonSpec, cells: Cells, command: str
) -> StudyRun[ComparisonSpec]:
    found = find_study(store, name)
    if found is not None:
        study = StudyRun(store, found.name, found.run_id, found.experiment_id, spec)
        claim_study(study)
        return study
    params = {
        "methods": ", ".join(method.title for method in spec.methods),
        "n_markers": ", ".join(map(str, spec.n_markers)),
        "replicates": spec.replicates,
        "recipe": spec.recipe,
        "seed": spec.seed,
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
    grid: list[GridTrial]
    rows: RowsFile
    outbox: Outbox
    console: Console

    def __post_init__(self) -> None:
        methods = self.study.spec.methods
        self.wanted = {trial.digest: trial for trial in self.grid}
        self.runs = {method.title: MethodRun.open(self.study, method) for method in methods}
        self.failed: dict[str, str] = {}

    def take_up(self) -> None:
        """Add what is finished: in the rows file, waiting on disk, in the store."""
        for ended in self.outbox.waiting():
            if ended.result is not None:
                self._add(ended)
        missing = self.wanted.keys() - self.rows.by_digest.keys()
        store, experiment = self.study.store, self.study.experiment_id
        for digest, row in stored_rows(store, experiment, missing):
            self._add_row(self.wanted[digest].spec, digest, row)

    def compute(self, resources: Resources) -> None:
        """Run the missing cells of the grid."""
        missing = [t for digest, t in self.wanted.items() if digest not in self.rows.by_digest]
        if not missing:
            return
        parts = parts_of(missing, resources)
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
            self.console.print(size_of(parts, known, slots), highlight=False, soft_wrap=True)
            waiting = dict(Counter(trial.method.title for trial in missing))
            progress = GridProgress(
                self.console, self.study.name, len(missing), waiting=waiting, slots=slots
            )
            with progress:
                recorder = GridRecorder(self.cells, progress, self._keep)
                shared = {"cells": self.cells}
                out = FanOut(self.study.name, GridActor, shared, recorder, resources, slots)
                out.fit({"part": tune.grid_search(described)})
        self.rows.write()

    def summarise(self, unsent: int) -> ComparisonResult:
        """Tables of all that is finished; the store gets them, if it has the trials."""
        axis = self.study.spec.axis
        finished = [
            row | {"method": trial.method.title, "setting": trial.setting.name}
            for trial in sorted(self.grid, key=self._order)
            if (row := self.rows.by_digest.get(trial.digest)) is not None
        ]
        if axis == NOISE:
            finished = [with_clean_classifiers(row) for row in finished]
        table = pd.DataFrame(finished)
        summary, curves = pd.DataFrame(), pd.DataFrame()
        if finished:
            summary = summarise_rows(table, len(self.cells.genes))
            curves = robustness(table, self.study.spec.seed) if axis == NOISE else curves
        if not unsent:
            zscore = None
            if self.study.spec.umap:
                self.console.print("drawing UMAPs of the panels", highlight=False)
                zscore = first_zscore(self.grid[0].spec, self.cells)
            for title, run in self.runs.items():
                own = [row for row in finished if row["method"] == title]
                part = summary.query("method == @title") if own else summary
                extra = robustness_metrics(curves.query("method == @title")) if len(curves) else {}
                run.finish(own, part, extra, self.cells, zscore)
        return ComparisonResult(self.study, table, summary, curves, self.failed, unsent)

    def _order(self, trial: GridTrial) -> tuple[int, int, int]:
        spec = self.study.spec
        position = spec.methods.index(trial.method), spec.settings.index(trial.setting)
        return (*position, trial.spec.first_replicate)

    def _keep(self, ended: EndedTrial) -> None:
        self.outbox.put(ended)
        self._add(ended)

    def _add(self, ended: EndedTrial) -> None:
        trial = self.wanted.get(ended.digest)
        if trial is None:
            return
        if ended.result is None:
            place = [trial.method.title, f"replicate {trial.spec.first_replicate}"]
            if len(self.study.spec.settings) > 1:
                place.insert(1, trial.setting.name)
            self.failed[", ".join(place)] = ended.reason
            return
        (replicate,) = ended.result.replicates.to_dict(orient="records")
        row = {str(name): value for name, value in replicate.items()}
        self._add_row(ended.spec, ended.digest, row)

    def _add_row(self, spec: TrialSpec, digest: str, replicate: Row) -> None:
        self.rows.add(make_row(spec, digest, self.cells.fingerprint, replicate))


def parts_of(missing: list[GridTrial], resources: Resources) -> list[list[GridTrial]]:
    """What is computed at a time: each replicate alone, but for two exceptions.

    All settings that differ in labels a method ignores are one part: it is fitted once. On a GPU
    replicates are trained as one. Alone a replicate is the same to the last bit, whatever else is
    missing; in a pack it is so only up to rounding, which a long training can carry into the
    choice of a gene.
    """
    together: dict[tuple[object, ...], list[GridTrial]] = defaultdict(list)
    for trial in missing:
        selector, spec = get_selector(trial.spec.selector), trial.spec
        packed = resources.gpus_per_trial > 0 and selector.trains_in_epochs
        block = spec.first_replicate // (_TRAINED_AS_ONE if packed else 1)
        same = trial.setting.name if selector.supervised else (spec.n_markers, repr(spec.params))
        together[trial.method.title, same, block].append(trial)
    # First replicates of all methods first, and of these the first settings: soon each method has
    # shown how long it takes.
    return sorted(
        together.values(),
        key=lambda part: (part[0].spec.first_replicate, part[0].setting.step),
    )
