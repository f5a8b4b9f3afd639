"""Run or resume a hyperparameter search: baselines, trials, summary."""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack, suppress

from rich.console import Console

from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.schedule.cluster import cluster, require_machine
from mmlab.schedule.ray_cluster import RayCluster
from mmlab.schedule.running_search import SearchResult, n_missing, run_trials
from mmlab.schedule.search_checks import check_search, require_new
from mmlab.schedule.study_size import check_size
from mmlab.spec.names import check_name, name_from
from mmlab.spec.resources import Resources
from mmlab.spec.search import SearchSpec
from mmlab.system.interruption import Interruption, StudyInterruptedError, interruptible
from mmlab.system.redaction import redact
from mmlab.system.words import count
from mmlab.tracking import (
    STORE_ERRORS,
    Outbox,
    StudyRun,
    TrackingStore,
    claim_study,
    close_abandoned,
    constraint_params,
    create_study,
    lock_study,
    open_study,
    spec_tags,
)


def run_search(
    spec: SearchSpec,
    store: TrackingStore,
    resources: Resources,
    console: Console,
    command: str = "",
    name: str | None = None,
) -> SearchResult:
    """Search the hyperparameters of a selector, and log every trial to the tracking store.

    Parameters
    ----------
    command
        Command line of the user, recorded in the study's run.
    name
        Name of the study; by default it consists of the dataset's name, the time and four
        random characters.

    Raises
    ------
    UserError
        ``spec`` cannot be run, or the name is invalid or already in use. Nothing is written to
        the store in these cases.
    """
    if name is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = f"tune-{name_from(spec.data.title)}-{stamp}-{secrets.token_hex(2)}"
    check_name(name, "study")
    check_size(spec.n_trials, store)
    require_machine(resources)
    # The name is taken before the store is searched for it, or two drivers would both find it free.
    with lock_study(store, name):
        require_new(name, store)
        cells = load_cells(spec.data)
        check_search(spec, cells)
        params = {
            "selector": spec.search.selector,
            "n_markers": spec.n_markers,
            "trials": spec.trials,
            "replicates": spec.replicates,
            "seed": spec.seed,
            "baselines": ", ".join(spec.baselines),
            **constraint_params(spec),
        }
        with interruptible() as stop, cluster(resources, stop, console) as ray_cluster:
            store.initialise()
            close_abandoned(store)
            study = create_study(store, name, spec, cells, params, command)
            return _run(study, cells, ray_cluster, stop, console)


def resume_search(
    name: str,
    store: TrackingStore,
    resources: Resources,
    console: Console,
    trials: int | None = None,
) -> SearchResult:
    """Resume a search: keep the ended trials, restart the interrupted ones, run the missing ones.

    Parameters
    ----------
    name
        Name of the study.
    trials
        New total number of trials, at least that of the study's specification; None keeps it.

    Raises
    ------
    UserError
        The study does not exist, is a comparison, has more than ``trials`` trials, or is running
        in another process; or its data have changed.
    """
    existing = open_study(store, name)
    spec = existing.spec
    if not isinstance(spec, SearchSpec):
        raise UserError(
            f"study {name} is a comparison, not a search. To resume it, run its own command again."
        )
    if trials is not None:
        if trials < spec.trials:
            raise UserError(
                f"--trials {trials}: study {name} is a search of {count(spec.trials, 'trial')}, "
                "and --trials may only be raised. Leave it out to finish the study."
            )
        spec = spec.model_copy(update={"trials": trials})
    check_size(spec.n_trials, store)
    study = existing.with_spec(spec)
    require_machine(resources)
    with lock_study(store, study.name):
        cells = load_cells(study.spec.data)
        study.require_data(cells, "start a new study")
        store.initialise()
        with interruptible() as stop, ExitStack() as stack:
            ray_cluster = None
            # Without anything to compute, what waits is sent without Ray.
            if n_missing(study, cells):
                ray_cluster = stack.enter_context(cluster(resources, stop, console))
            claim_study(study)
            store.set_tags(study.run_id, spec_tags(study.spec))
            return _run(study, cells, ray_cluster, stop, console)


def _run(
    study: StudyRun[SearchSpec],
    cells: Cells,
    cluster: RayCluster | None,
    interruption: Interruption,
    console: Console,
) -> SearchResult:
    """Run the missing trials, write the summary, and close the study's run."""
    outbox = Outbox(study, cells, interruption.request)
    try:
        with outbox:
            result = run_trials(study, cells, cluster, console, outbox)
        if not result.unsent:
            study.finish(complete=True)
    except STORE_ERRORS as error:
        # The run is not closed: this store would block here. Resuming the study closes its runs.
        reason = redact(" ".join(str(error).split()))[:300].rstrip(".")
        raise UserError(
            f"study {study.name} stopped, because it could not be written to the end: {reason}. "
            f"Its ended trials are kept in {study.store.uri}, or on this machine. When this store "
            f"can be written again, go on with: mmlab tune --resume {study.name}."
        ) from error
    except KeyboardInterrupt as interrupt:
        if cluster is not None:
            cluster.end_workers()
        _finish_incomplete(study, outbox)
        raise StudyInterruptedError(study.name, interruption.reason) from interrupt
    except BaseException:
        _finish_incomplete(study, outbox)
        raise
    return result


def _finish_incomplete(study: StudyRun[SearchSpec], outbox: Outbox) -> None:
    """Close the run of a study that did not end, unless the store does not take it."""
    if not outbox.last_error:
        with suppress(*STORE_ERRORS):
            study.finish(complete=False)
