"""A study from its first trial to its summary; also one that was interrupted."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass

from ray import tune
from rich.console import Console

from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.schedule.actor import SearchActor
from mmlab.schedule.cluster import cluster
from mmlab.schedule.progress import SearchProgress
from mmlab.schedule.search_algorithm import RecordedHalving, make_searcher
from mmlab.schedule.search_recorder import SearchRecorder
from mmlab.schedule.search_summary import best_trial, write_summary
from mmlab.schedule.tune_run import StudyInterruptedError, TuneRun, sigterm_as_interrupt
from mmlab.selectors import get_selector, resolve_params
from mmlab.spec.resources import Resources
from mmlab.spec.search import SearchSpec
from mmlab.tracking import (
    ENDED,
    StudyRun,
    TrackingStore,
    TrialRecord,
    claim_study,
    close_abandoned,
    constraint_params,
    create_study,
    describe_search,
    find_study,
    open_study,
    spec_tags,
)
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.run import Trial


@dataclass(frozen=True)
class SearchResult:
    """What a study has found.

    Attributes
    ----------
    study
        The study in its store.
    trials
        Records of all trials, baselines included, oldest first.
    best
        The searched trial with the highest validation score among those that ran to their
        end; None if there is none.
    """

    study: StudyRun[SearchSpec]
    trials: list[TrialRecord]
    best: TrialRecord | None


def run_search(
    spec: SearchSpec,
    store: TrackingStore,
    resources: Resources,
    console: Console,
    command: str = "",
    name: str | None = None,
) -> SearchResult:
    """Search the parameters of a selector on a dataset; every trial is in the store.

    Parameters
    ----------
    name
        Of the study; default: the dataset and the time.

    Raises
    ------
    UserError
        Anything in ``spec`` that cannot be run, or a name that is taken or cannot be one; then
        the store is left as it was.
    """
    if name is not None:
        _check_name(name, store)
    cells = load_cells(spec.data)
    check_search(spec, cells)
    with cluster(resources) as slots, sigterm_as_interrupt():
        store.initialise()
        close_abandoned(store)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = name or f"tune-{cells.name}-{stamp}-{secrets.token_hex(2)}"
        params = {
            "selector": spec.search.selector,
            "n_markers": spec.n_markers,
            "trials": spec.trials,
            "replicates": spec.replicates,
            "seed": spec.seed,
            "baselines": ", ".join(spec.baselines),
            **constraint_params(spec),
        }
        study = create_study(store, name, spec, cells, params, command)
        return _work(study, cells, resources, slots, console)


def _check_name(name: str, store: TrackingStore) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(
            f"--name {name!r} cannot name a study: use letters, digits, dots, dashes and "
            "underscores, the first of them a letter or a digit."
        )
    if find_study(store, name) is not None:
        raise UserError(
            f"study {name} is in {store.uri} already: go on with it by --resume {name}, or give "
            "another --name."
        )


def resume_search(
    name: str,
    store: TrackingStore,
    resources: Resources,
    console: Console,
    trials: int | None = None,
) -> SearchResult:
    """Go on with a study: ended trials are kept, interrupted ones begin again.

    Parameters
    ----------
    name
        Of the study.
    trials
        New number of trials to reach; None keeps the one that was asked for.

    Raises
    ------
    UserError
        Unknown study, or one that another process is working on; or its data have changed.
    """
    found = open_study(store, name)
    spec = found.spec
    if not isinstance(spec, SearchSpec):
        raise UserError(f"study {name} is a comparison: give its own command again to go on.")
    if trials is not None:
        spec = spec.model_copy(update={"trials": trials})
    study = found.with_spec(spec)
    cells = load_cells(study.spec.data)
    study.require_data(cells, "start a new study")
    with cluster(resources) as slots, sigterm_as_interrupt():
        store.initialise()
        claim_study(study)
        store.set_tags(study.run_id, spec_tags(study.spec))
        return _work(study, cells, resources, slots, console)


def check_search(spec: SearchSpec, cells: Cells) -> None:
    """Raise ``UserError`` for whatever would fail later, before anything is written."""
    search = spec.search
    defaults = resolve_params(search.selector, search.fixed)
    problems = [
        f"{name} is not a parameter of {search.selector} (it has: {', '.join(defaults)})"
        for name in search.parameters
        if name not in defaults
    ]
    problems += [f"{n} is both searched and fixed" for n in search.parameters if n in search.fixed]
    if not get_selector(search.selector).trains_in_epochs:
        problems.append(f"{search.selector} does not train in epochs: there is nothing to tune")
    if problems:
        raise UserError("search space: " + "; ".join(problems) + ".")
    for point in search.corners():
        resolve_spec(spec.trial(search.selector, search.fixed | point), cells)
    for baseline in spec.baselines:
        resolve_spec(spec.trial(baseline, {}), cells)
    # All trials have the same training cells.
    Trial(
        spec.trial(search.selector, search.fixed | search.corners()[0]), cells
    ).check_constraints()


def _work(
    study: StudyRun[SearchSpec], cells: Cells, resources: Resources, slots: int, console: Console
) -> SearchResult:
    complete = False
    try:
        records = study.trials()
        total = study.spec.trials + len(study.spec.baselines)
        ended = sum(record.outcome in ENDED for record in records)
        searched = list(study.spec.search.parameters)
        with SearchProgress(console, study.name, total, ended, searched=searched) as progress:
            recorder = SearchRecorder(study, cells, progress)
            shared = {"cells": cells, "study": study}
            out = TuneRun(study.name, SearchActor, shared, recorder, resources, slots)
            _run_baselines(study, records, out)
            _run_search(study, cells, out)
        study.close_open_trials()
        records = study.trials()
        best = best_trial(study, records)
        study.store.log_files(
            study.run_id, lambda folder: write_summary(study, records, best, folder)
        )
        describe_search(study, records, best)
        complete = True
    except KeyboardInterrupt as interrupt:
        raise StudyInterruptedError(study.name) from interrupt
    finally:
        study.finish(complete)
    return SearchResult(study, records, best)


def _run_baselines(study: StudyRun[SearchSpec], records: list[TrialRecord], out: TuneRun) -> None:
    """Run the baselines that have not ended yet."""
    ended = {record.selector for record in records if record.outcome in ENDED}
    missing = [name for name in study.spec.baselines if name not in ended]
    if missing:
        out.fit({"selector": tune.grid_search(missing), "params": {}})


def _run_search(study: StudyRun[SearchSpec], cells: Cells, out: TuneRun) -> None:
    """Run searched trials until as many have ended as the study asks for."""
    search = study.spec.search
    params = resolve_params(search.selector, search.fixed)
    max_epochs = int(params["max_epochs"])
    while True:
        records = [r for r in study.trials() if r.selector == search.selector]
        ended = sum(record.outcome in ENDED for record in records)
        if ended >= study.spec.trials:
            return
        out.fit(
            {"selector": search.selector, "params": search.fixed},
            search_alg=make_searcher(study, records, cells),
            scheduler=RecordedHalving(study, max_epochs, records),
            num_samples=study.spec.trials - ended,
        )
        after = [r for r in study.trials() if r.selector == search.selector]
        if sum(record.outcome in ENDED for record in after) == ended:
            raise UserError(
                f"study {study.name} found no new configuration after {ended} of "
                f"{study.spec.trials} trials: the search space is exhausted."
            )
