"""Run or resume a hyperparameter search: baselines, trials, summary."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass

from ray import tune
from rich.console import Console

from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.schedule.actor import SearchActor
from mmlab.schedule.cluster import cluster, require_machine
from mmlab.schedule.progress import SearchProgress
from mmlab.schedule.ray_cluster import RayCluster
from mmlab.schedule.ray_tune_run import TuneRun
from mmlab.schedule.search_algorithm import NewConfigurations, WarmStartASHA
from mmlab.schedule.search_checks import check_search, require_new
from mmlab.schedule.search_recorder import SearchRecorder
from mmlab.schedule.search_summary import best_trial, write_summary
from mmlab.schedule.search_trials import SearchTrials
from mmlab.schedule.shared_cells import share_cells
from mmlab.schedule.study_size import check_size
from mmlab.selectors import resolve_params
from mmlab.spec.names import check_name, name_from
from mmlab.spec.resources import Resources
from mmlab.spec.search import SearchSpec
from mmlab.system.interruption import StudyInterruptedError, interruptible
from mmlab.system.redaction import redact
from mmlab.tracking import (
    ENDED,
    STORE_ERRORS,
    Outbox,
    StudyRun,
    TrackingStore,
    TrialRecord,
    claim_study,
    close_abandoned,
    constraint_params,
    create_study,
    lock_study,
    log_search_summary,
    open_study,
    spec_tags,
)


@dataclass(frozen=True)
class SearchResult:
    """The results of a search.

    Attributes
    ----------
    study
        The study in the tracking store.
    trials
        Records of all trials, including the baselines, oldest first.
    best
        The complete searched trial with the highest validation score; None if there is none.
    panel
        The names of the genes of its panel, best first.
    unsent
        Number of ended trials that the tracking store has not accepted.
    """

    study: StudyRun[SearchSpec]
    trials: list[TrialRecord]
    best: TrialRecord | None
    panel: list[str]
    unsent: int = 0


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
    check_size(spec.trials + len(spec.baselines), store)
    # The name is taken before the store is searched for it, or two drivers would both find it free.
    with lock_study(store, name):
        require_new(name, store)
        cells = load_cells(spec.data)
        check_search(spec, cells)
        require_machine(resources)
        store.initialise()
        close_abandoned(store)
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
            study = create_study(store, name, spec, cells, params, command)
            return _run(study, cells, ray_cluster, console)


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
        New total number of trials; None keeps the number in the study's specification.

    Raises
    ------
    UserError
        The study does not exist, is a comparison, or is running in another process; or its data
        have changed.
    """
    existing = open_study(store, name)
    spec = existing.spec
    if not isinstance(spec, SearchSpec):
        raise UserError(
            f"study {name} is a comparison, not a search. To resume it, run its own command again."
        )
    if trials is not None:
        spec = spec.model_copy(update={"trials": trials})
    check_size(spec.trials + len(spec.baselines), store)
    study = existing.with_spec(spec)
    with lock_study(store, study.name):
        cells = load_cells(study.spec.data)
        study.require_data(cells, "start a new study")
        require_machine(resources)
        store.initialise()
        with interruptible() as stop, cluster(resources, stop, console) as ray_cluster:
            claim_study(study)
            store.set_tags(study.run_id, spec_tags(study.spec))
            return _run(study, cells, ray_cluster, console)


def _run(
    study: StudyRun[SearchSpec], cells: Cells, cluster: RayCluster, console: Console
) -> SearchResult:
    """Run the missing trials, write the summary, and close the study's run."""
    outbox = Outbox(study, cells, cluster.interruption.request)
    try:
        with outbox:
            result = _run_trials(study, cells, cluster, console, outbox)
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
        cluster.end_workers()
        _finish_incomplete(study, outbox)
        raise StudyInterruptedError(study.name, cluster.interruption.reason) from interrupt
    except BaseException:
        _finish_incomplete(study, outbox)
        raise
    return result


def _finish_incomplete(study: StudyRun[SearchSpec], outbox: Outbox) -> None:
    """Close the run of a study that did not end, unless the store does not take it."""
    if not outbox.last_error:
        with suppress(*STORE_ERRORS):
            study.finish(complete=False)


def _run_trials(
    study: StudyRun[SearchSpec],
    cells: Cells,
    cluster: RayCluster,
    console: Console,
    outbox: Outbox,
) -> SearchResult:
    """Run the missing trials and write the summary."""
    trials = SearchTrials(study, cells, outbox.unsent())
    total = study.spec.trials + len(study.spec.baselines)
    ended = sum(record.outcome in ENDED for record in trials.all())
    searched = list(study.spec.search.parameters)
    with SearchProgress(console, study.name, total, ended, searched=searched) as progress:
        recorder = SearchRecorder(trials, outbox, progress)
        shared = {
            "cells": share_cells(cells, cluster.resources.address),
            "spec": study.spec,
        }
        tune_run = TuneRun(study.name, SearchActor, shared, recorder, cluster)
        _run_baselines(trials, tune_run)
        _run_search(trials, tune_run)
    unsent = outbox.drain()
    if unsent:
        _say_what_is_lost(study, outbox, console)
        records = trials.all()
    else:
        study.close_open_trials()
        records = study.trials()
    best = best_trial(study, records)
    panel = [] if best is None else trials.panel(best)
    if not unsent:
        study.store.log_files(
            study.run_id, lambda folder: write_summary(study, records, best, folder)
        )
        log_search_summary(study, records, best)
    return SearchResult(study, records, best, panel, unsent)


def _say_what_is_lost(study: StudyRun[SearchSpec], outbox: Outbox, console: Console) -> None:
    """Say so if neither store nor outbox could take all ended trials."""
    n_trials = outbox.flush()
    if n_trials:
        console.print(
            f"{n_trials} finished trials could not be sent to {study.store.uri}, nor be written "
            f"to {outbox.folder} ({outbox.disk_error}): they are run again when the study is "
            "resumed.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _run_baselines(trials: SearchTrials, tune_run: TuneRun) -> None:
    """Run the baselines that have not ended."""
    ended = {record.selector for record in trials.all() if record.outcome in ENDED}
    missing = [name for name in trials.study.spec.baselines if name not in ended]
    while missing:
        lost = tune_run.fit({"selector": tune.grid_search(missing), "params": {}})
        missing = [config["selector"] for config in lost]


def _run_search(trials: SearchTrials, tune_run: TuneRun) -> None:
    """Run searched trials until the required number of trials has ended."""
    study = trials.study
    search = study.spec.search
    max_epochs = int(resolve_params(search.selector, search.fixed)["max_epochs"])
    while True:
        ended = trials.n_ended(search.selector)
        if ended >= study.spec.trials:
            return
        lost = tune_run.fit(
            {"selector": search.selector, "params": search.fixed},
            search_alg=NewConfigurations(trials),
            scheduler=WarmStartASHA(trials, max_epochs),
            num_samples=study.spec.trials - ended,
        )
        if not lost and trials.n_ended(search.selector) == ended:
            raise UserError(
                f"study {study.name}: no new configuration after {ended} of {study.spec.trials} "
                "trials; the search space is exhausted. Extend it, or reduce --trials."
            )
