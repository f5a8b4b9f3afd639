"""Run or resume a comparison: methods x settings x replicates, each computed exactly once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from mmlab.comparison.result_table import ResultFile, make_row
from mmlab.comparison.row_checks import check_planned
from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.schedule.cluster import require_machine
from mmlab.schedule.comparison_plan import (
    ComparisonResult,
    comparison_name,
    plan_trials,
)
from mmlab.schedule.rescue import rescue_replicates
from mmlab.schedule.running_comparison import RunningComparison
from mmlab.schedule.study_size import check_size
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.resources import Resources
from mmlab.system.interruption import (
    StudyInterruptedError,
    interruptible,
)
from mmlab.tracking import (
    Outbox,
    StudyRun,
    TrackingStore,
    close_abandoned,
    constraint_params,
    create_study,
    lock_results_file,
    lock_study,
    reclaim_study,
)


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
    require_machine(resources)
    cells = load_cells(spec.data)
    trials = plan_trials(spec, cells)
    name = comparison_name(spec, cells)
    store.initialise()
    with (
        lock_study(store, name),
        lock_results_file(results_file),
        interruptible() as interruption,
    ):
        rows = ResultFile.read(results_file, {cells.fingerprint: len(cells.genes)})
        planned = (
            make_row(t.spec, t.digest, cells.fingerprint, {"replicate": t.spec.first_replicate})
            for t in trials
            if t.digest in rows.by_digest
        )
        check_planned(results_file, rows.by_digest, planned)
        close_abandoned(store)
        study = _open_study(store, name, spec, cells, command, parent_run_id)
        outbox, complete = Outbox(study, cells, interruption.request), False
        try:
            with outbox:
                comparison = RunningComparison(study, cells, trials, rows, outbox, console)
                comparison.load_finished()
                try:
                    comparison.compute(resources, interruption)
                    result = comparison.summarise(outbox.drain())
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
