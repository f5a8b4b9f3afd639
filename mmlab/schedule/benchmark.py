"""A comparison: a grid of methods, panel sizes and replicates, each computed exactly once."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from ray import tune
from rich.console import Console

from mmlab.config import BenchmarkSpec, MethodSpec, TrialSpec
from mmlab.datasets import load_cells
from mmlab.datasets.base import Cells
from mmlab.errors import UserError
from mmlab.pipeline import resolve
from mmlab.rows import Row, from_parquet, make_row, read_rows, summarise_rows, write_rows
from mmlab.schedule.cluster import Resources, cluster
from mmlab.schedule.driver import FanOut, StudyInterruptedError, sigterm_as_interrupt
from mmlab.schedule.progress import GridProgress
from mmlab.selectors import get_selector
from mmlab.tracking import (
    MethodRun,
    Outcome,
    Store,
    StudyRun,
    claim_study,
    close_abandoned,
    create_study,
    find_study,
)

#: Replicates of a method that share a GPU's every step, at most; they are kept when all are done.
_TRAINED_AS_ONE = 10


@dataclass(frozen=True)
class GridTrial:
    """A cell of the grid: one replicate of one method at one panel size, resolved."""

    method: MethodSpec
    n_markers: int
    spec: TrialSpec
    digest: str


@dataclass(frozen=True)
class BenchmarkResult:
    """What a comparison has found.

    Attributes
    ----------
    study
        The study in its store.
    rows
        A row a finished replicate, see :mod:`mmlab.rows`, with the column ``method``.
    summary
        From :func:`mmlab.rows.summarise_rows`.
    failed
        Reason by "method, replicate" of the trials that failed.
    """

    study: StudyRun[BenchmarkSpec]
    rows: pd.DataFrame
    summary: pd.DataFrame
    failed: dict[str, str]


def plan(spec: BenchmarkSpec, cells: Cells) -> list[GridTrial]:
    """All cells of the grid, first replicates first.

    The control that takes all genes is the same trial, of one digest, at every panel size.

    Raises
    ------
    UserError
        Every method or panel size that cannot be run.
    """
    found: list[GridTrial] = []
    problems: dict[str, None] = {}
    most = max(method.replicates or spec.replicates for method in spec.methods)
    for replicate in range(most):
        for method in spec.methods:
            if replicate >= (method.replicates or spec.replicates):
                continue
            for n_markers in spec.n_markers:
                try:
                    trial = resolve(spec.trial(method, n_markers, replicate), cells)
                except UserError as error:
                    problems.setdefault(str(error).rstrip("."))
                    continue
                digest = trial.digest(cells.fingerprint)
                found.append(GridTrial(method, n_markers, trial, digest))
    if problems:
        raise UserError("; ".join(problems) + ".")
    return found


def run_benchmark(
    spec: BenchmarkSpec,
    store: Store,
    resources: Resources,
    console: Console,
    *,
    rows_file: Path | None = None,
    command: str = "",
) -> BenchmarkResult:
    """Compute what is missing of a comparison, and summarise all of it.

    The same specification on the same cells is the same study: started again, it goes on. A
    replicate that any study of the store, or ``rows_file``, holds as finished is taken from
    there.

    Parameters
    ----------
    rows_file
        Parquet file of finished replicates, read first and written after every new one.

    Raises
    ------
    UserError
        Anything in ``spec`` that cannot be run (then the store is left as it was), or another
        process is at work on the study.
    """
    cells = load_cells(spec.data)
    grid = plan(spec, cells)
    kept = read_rows(rows_file) if rows_file is not None else []
    store.initialise()
    close_abandoned(store)
    study = _open(store, spec, cells, command)
    complete = False
    try:
        rows = _Rows({str(row["digest"]): row for row in kept}, rows_file, cells)
        runs = {
            (method.title, k): MethodRun.open(study, method, k)
            for method in spec.methods
            for k in spec.n_markers
        }
        wanted = {trial.digest: trial for trial in grid}
        for digest, replicate in _finished_before(study, wanted, rows.by_digest):
            rows.add(wanted[digest].spec, digest, replicate)
        missing = [trial for digest, trial in wanted.items() if digest not in rows.by_digest]
        if missing:
            _compute(study, cells, missing, rows, runs, resources, console)
        result = _summarise(study, cells, grid, rows, runs)
        complete = not result.failed
    except KeyboardInterrupt as interrupt:
        raise StudyInterruptedError(study.name) from interrupt
    finally:
        study.finish(complete)
    return result


@dataclass
class _Rows:
    """Finished replicates by digest; every new one is written at once."""

    by_digest: dict[str, Row]
    path: Path | None
    cells: Cells

    def add(self, spec: TrialSpec, digest: str, replicate: Row) -> None:
        self.by_digest[digest] = make_row(spec, digest, self.cells.fingerprint, replicate)
        if self.path is not None:
            write_rows(self.by_digest.values(), self.path)


def _open(store: Store, spec: BenchmarkSpec, cells: Cells, command: str) -> StudyRun[BenchmarkSpec]:
    name = f"benchmark-{cells.name}-{spec.digest(cells.fingerprint)[:8]}"
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
    return create_study(store, name, spec, cells, params, command)


def _compute(
    study: StudyRun[BenchmarkSpec],
    cells: Cells,
    missing: list[GridTrial],
    rows: _Rows,
    runs: dict[tuple[str, int], MethodRun],
    resources: Resources,
    console: Console,
) -> None:
    """Run the missing cells of the grid, and add what they give to the rows."""
    specs = {trial.digest: trial.spec for trial in missing}
    several = len(study.spec.n_markers) > 1
    title = {t.digest: t.method.title + f" k={t.n_markers}" * several for t in missing}
    parts = [
        {
            "trials": [trial.spec.model_dump(mode="json") for trial in part],
            "method": title[part[0].digest],
            "parent": runs[part[0].method.title, part[0].n_markers].run_id,
        }
        for part in _parts(missing, resources)
    ]
    with cluster(resources) as slots, sigterm_as_interrupt():
        progress = GridProgress(
            console, study.name, len(missing), waiting=dict(Counter(title.values())), slots=slots
        )
        with progress:
            out = FanOut(
                study,
                cells,
                resources,
                slots,
                progress,
                lambda digest, found: rows.add(specs[digest], digest, found[0]),
            )
            out.fit({"part": tune.grid_search(parts)})


def _parts(missing: list[GridTrial], resources: Resources) -> list[list[GridTrial]]:
    """What is computed at a time: on a GPU replicates that are trained as one, else each alone.

    Alone a replicate is the same to the last bit, whatever else is missing; in a pack it is so
    only up to rounding, which a long training can carry into the choice of a gene.
    """
    size = _TRAINED_AS_ONE if resources.gpus_per_trial > 0 else 1
    of_a_method: dict[tuple[str, int], list[GridTrial]] = {}
    for trial in missing:
        of_a_method.setdefault((trial.method.title, trial.n_markers), []).append(trial)
    parts = []
    for trials in of_a_method.values():
        at_once = size if get_selector(trials[0].spec.selector).trains_in_epochs else 1
        parts += [trials[start : start + at_once] for start in range(0, len(trials), at_once)]
    # First replicates of all methods first.
    return sorted(parts, key=lambda part: part[0].spec.first_replicate)


def _finished_before(
    study: StudyRun[BenchmarkSpec], wanted: dict[str, GridTrial], known: dict[str, Row]
) -> Iterator[tuple[str, Row]]:
    """Replicates that any study of the experiment has finished, with their digests."""
    complete = f"tags.`mmlab.kind` = 'trial' and tags.`mmlab.outcome` = '{Outcome.COMPLETE}'"
    for run in study.store.search(complete, [study.experiment_id]):
        digest = run.data.tags["mmlab.digest"]
        if digest not in wanted or digest in known:
            continue
        with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
            path = study.store.client.download_artifacts(
                run.info.run_id, "replicates.parquet", folder
            )
            yield digest, from_parquet(pd.read_parquet(path).to_dict(orient="records")[0])


def _summarise(
    study: StudyRun[BenchmarkSpec],
    cells: Cells,
    grid: list[GridTrial],
    rows: _Rows,
    runs: dict[tuple[str, int], MethodRun],
) -> BenchmarkResult:
    finished = [
        {
            **rows.by_digest[trial.digest],
            "method": trial.method.title,
            "n_markers": trial.n_markers,
        }
        for trial in sorted(grid, key=lambda trial: trial.spec.first_replicate)
        if trial.digest in rows.by_digest
    ]
    order = [method.title for method in study.spec.methods]
    finished.sort(key=lambda row: order.index(row["method"]))
    table = pd.DataFrame(finished)
    summary = summarise_rows(table, len(cells.genes)) if finished else pd.DataFrame()
    for (title, k), run in runs.items():
        own = [row for row in finished if row["method"] == title and row["n_markers"] == k]
        part = summary.query("method == @title and n_markers == @k") if own else summary
        run.finish(own, part, cells)
    failed = {
        f"{record.selector} replicate {record.spec.first_replicate}": record.reason
        for record in study.trials()
        if record.outcome == Outcome.FAILED
    }
    return BenchmarkResult(study, table, summary, failed)
