"""A search in progress: its baselines, its searched trials, and their summary."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.schedule.actor import SearchActor
from mmlab.schedule.progress import SearchProgress
from mmlab.schedule.ray_cluster import RayCluster
from mmlab.schedule.ray_tune_run import TuneRun
from mmlab.schedule.rescue import describe_lost
from mmlab.schedule.search_algorithm import NewConfigurations, WarmStartASHA
from mmlab.schedule.search_recorder import SearchRecorder
from mmlab.schedule.search_summary import best_trial, write_summary
from mmlab.schedule.search_trials import SearchTrials
from mmlab.schedule.shared_cells import share_cells
from mmlab.selectors import resolve_params
from mmlab.spec.search import SearchSpec
from mmlab.tracking import Outbox, StudyRun, TrialRecord, log_search_summary
from mmlab.tracking.unsent_trials import recorded_trials
from mmlab.trial.outcome import ENDED


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
    waiting_in
        The folder, or place in an object store, where these are kept.
    """

    study: StudyRun[SearchSpec]
    trials: list[TrialRecord]
    best: TrialRecord | None
    panel: list[str]
    unsent: int = 0
    waiting_in: str = ""


def n_missing(study: StudyRun[SearchSpec], cells: Cells) -> int:
    """Return how many trials of a search have not ended yet, without claiming the study."""
    unsent = recorded_trials(study)
    return study.spec.n_trials - SearchTrials(study, cells, unsent).n_all_ended()


def run_trials(
    study: StudyRun[SearchSpec],
    cells: Cells,
    cluster: RayCluster | None,
    console: Console,
    outbox: Outbox,
) -> SearchResult:
    """Run the missing trials and write the summary; without a cluster, no trial may be missing."""
    trials = SearchTrials(study, cells, outbox.unsent.all())
    total, ended = study.spec.n_trials, trials.n_all_ended()
    search, best = study.spec.search, best_trial(study, trials.all())
    with SearchProgress(
        console,
        study.name,
        total,
        ended,
        method=search.selector,
        searched=list(search.parameters),
        best=None if best is None else best.score,
        unsent=outbox.unsent.__len__,
    ) as progress:
        if cluster is not None:
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
    return SearchResult(study, records, best, panel, unsent, outbox.unsent.place)


def _say_what_is_lost(study: StudyRun[SearchSpec], outbox: Outbox, console: Console) -> None:
    """Say so if neither store nor outbox could take all ended trials."""
    n_trials = outbox.unsent.flush()
    if n_trials:
        console.print(
            f"{describe_lost(study, outbox, n_trials)}: they are run again when the study is "
            "resumed.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _run_baselines(trials: SearchTrials, tune_run: TuneRun) -> None:
    """Run the baselines that have not ended."""
    ended = {record.selector for record in trials.all() if record.outcome in ENDED}
    missing = [name for name in trials.study.spec.baselines if name not in ended]
    tune_run.run_each("selector", missing, params={})


def _run_search(trials: SearchTrials, tune_run: TuneRun) -> None:
    """Run searched trials until the required number of trials has ended."""
    study = trials.study
    search = study.spec.search
    max_epochs = int(resolve_params(search.selector, search.fixed)["max_epochs"])
    while True:
        ended = trials.n_ended(search.selector)
        if ended >= study.spec.trials:
            return
        was_lost = tune_run.fit(
            {"selector": search.selector, "params": search.fixed},
            searcher=NewConfigurations(trials),
            scheduler=WarmStartASHA(trials, max_epochs),
            num_samples=study.spec.trials - ended,
        )
        if not was_lost and trials.n_ended(search.selector) == ended:
            raise UserError(
                f"study {study.name}: no new configuration after {ended} of {study.spec.trials} "
                "trials; the search space is exhausted. The ended trials are kept; to try more, "
                "start a new study with a larger search space."
            )
