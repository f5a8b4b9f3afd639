"""A study from its first trial to its summary; also one that was interrupted."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ray import tune
from rich.console import Console

from mmlab.config import StudySpec
from mmlab.datasets import load_cells
from mmlab.datasets.base import Cells
from mmlab.errors import UserError
from mmlab.pipeline import resolve
from mmlab.schedule.actor import TrialActor
from mmlab.schedule.cluster import Resources, cluster
from mmlab.schedule.progress import Progress, Recorder
from mmlab.schedule.search import RecordedHalving, make_searcher, search_figures
from mmlab.selectors import get_selector, resolve_params
from mmlab.tracking import (
    ENDED,
    Outcome,
    Store,
    StudyRun,
    TrialRecord,
    claim_study,
    close_abandoned,
    create_study,
    open_study,
)

#: How often a trial whose worker died, or that raised, is begun again.
_RETRIES = 1


class StudyInterruptedError(KeyboardInterrupt):
    """Ctrl-C or SIGTERM while a study ran; the message is its name."""


@dataclass(frozen=True)
class StudyResult:
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

    study: StudyRun
    trials: list[TrialRecord]
    best: TrialRecord | None


def run_study(
    spec: StudySpec, store: Store, resources: Resources, console: Console, command: str = ""
) -> StudyResult:
    """Search the parameters of a selector on a dataset; every trial is in the store.

    Raises
    ------
    UserError
        Anything in ``spec`` that cannot be run; then the store is left as it was.
    """
    cells = load_cells(spec.data)
    check_study(spec, cells)
    with cluster(resources) as slots, _sigterm_as_interrupt():
        store.initialise()
        close_abandoned(store)
        study = create_study(store, spec, cells, command)
        return _work(study, cells, resources, slots, console)


def resume_study(
    name: str, store: Store, resources: Resources, console: Console, trials: int | None = None
) -> StudyResult:
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
    study = open_study(store, name)
    if trials is not None:
        spec = study.spec.model_copy(update={"trials": trials})
        study = StudyRun(store, study.name, study.run_id, study.experiment_id, spec)
    cells = load_cells(study.spec.data)
    recorded = study.fingerprint()
    if cells.fingerprint != recorded:
        raise UserError(
            f"the data of study {study.name} have changed: their fingerprint was "
            f"{recorded[:12]} and is {cells.fingerprint[:12]} now; start a new study."
        )
    with cluster(resources) as slots, _sigterm_as_interrupt():
        store.initialise()
        claim_study(study)
        store.set_tags(study.run_id, {"mmlab.spec": study.spec.model_dump_json()})
        return _work(study, cells, resources, slots, console)


def check_study(spec: StudySpec, cells: Cells) -> None:
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
        resolve(spec.trial(search.selector, search.fixed | point), cells)
    for baseline in spec.baselines:
        resolve(spec.trial(baseline, {}), cells)


def _work(
    study: StudyRun, cells: Cells, resources: Resources, slots: int, console: Console
) -> StudyResult:
    complete = False
    try:
        records = study.trials()
        total = study.spec.trials + len(study.spec.baselines)
        ended = sum(record.outcome in ENDED for record in records)
        searched = list(study.spec.search.parameters)
        with Progress(console, study.name, searched, total, ended) as progress:
            fan_out = _FanOut(study, cells, resources, slots, progress)
            fan_out.baselines(records)
            fan_out.search()
        study.close_open_trials()
        records = study.trials()
        best = best_trial(study, records)
        study.store.log_files(
            study.run_id, lambda folder: _write_summary(study, records, best, folder)
        )
        study.describe(records, best)
        complete = True
    except KeyboardInterrupt as interrupt:
        raise StudyInterruptedError(study.name) from interrupt
    finally:
        study.finish(complete)
    return StudyResult(study, records, best)


@dataclass
class _FanOut:
    """Hands the trials of a study to Ray Tune."""

    study: StudyRun
    cells: Cells
    resources: Resources
    slots: int
    progress: Progress

    def baselines(self, records: list[TrialRecord]) -> None:
        """Run the baselines that have not ended yet."""
        ended = {record.selector for record in records if record.outcome in ENDED}
        missing = [name for name in self.study.spec.baselines if name not in ended]
        if missing:
            space = {"selector": tune.grid_search(missing), "params": {}}
            self._fit(space, tune.TuneConfig(max_concurrent_trials=self.slots, reuse_actors=True))

    def search(self) -> None:
        """Run searched trials until as many have ended as the study asks for."""
        search = self.study.spec.search
        params = resolve_params(search.selector, search.fixed)
        max_epochs = int(params["max_epochs"])
        while True:
            records = [r for r in self.study.trials() if r.selector == search.selector]
            ended = sum(record.outcome in ENDED for record in records)
            if ended >= self.study.spec.trials:
                return
            self._fit(
                {"selector": search.selector, "params": search.fixed},
                tune.TuneConfig(
                    search_alg=make_searcher(self.study, records, self.cells),
                    scheduler=RecordedHalving(self.study, max_epochs, records),
                    num_samples=self.study.spec.trials - ended,
                    max_concurrent_trials=self.slots,
                    reuse_actors=True,
                ),
            )
            after = [r for r in self.study.trials() if r.selector == search.selector]
            if sum(record.outcome in ENDED for record in after) == ended:
                raise UserError(
                    f"study {self.study.name} found no new configuration after {ended} of "
                    f"{self.study.spec.trials} trials: the search space is exhausted."
                )

    def _fit(self, space: dict[str, Any], config: tune.TuneConfig) -> None:
        trainable = tune.with_resources(
            tune.with_parameters(
                TrialActor,
                cells=self.cells,
                study=self.study,
                threads=self.resources.cpus_per_trial,
            ),
            {"cpu": self.resources.cpus_per_trial, "gpu": self.resources.gpus_per_trial},
        )
        with tempfile.TemporaryDirectory(prefix="mmlab-tune-") as folder:
            tuner = tune.Tuner(
                trainable,
                param_space=space,
                tune_config=config,
                run_config=tune.RunConfig(
                    name=self.study.name,
                    storage_path=folder,
                    callbacks=[Recorder(self.study, self.cells, self.progress)],
                    # A trial is minutes of work: one that is interrupted begins again.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=_RETRIES),
                    verbose=0,
                ),
            )
            tuner.fit()


def best_trial(study: StudyRun, records: list[TrialRecord]) -> TrialRecord | None:
    """The searched trial with the highest validation score that ran to its end."""
    complete = [
        record
        for record in records
        if record.selector == study.spec.search.selector
        and record.outcome == Outcome.COMPLETE
        and record.score is not None
    ]
    return max(complete, key=lambda record: record.score or 0.0, default=None)


def trial_table(records: list[TrialRecord]) -> pd.DataFrame:
    """A row a trial: digest, selector, outcome, parameters, metrics."""
    return pd.DataFrame(
        [
            {
                "digest": record.digest,
                "selector": record.selector,
                "outcome": str(record.outcome),
                **{f"params.{name}": value for name, value in record.spec.params.items()},
                **record.metrics,
            }
            for record in records
        ]
    )


def _write_summary(
    study: StudyRun, records: list[TrialRecord], best: TrialRecord | None, folder: Path
) -> None:
    table = trial_table(records)
    table.to_parquet(folder / "trials.parquet", index=False)
    table.to_csv(folder / "trials.csv", index=False)
    if best is not None:
        content = {
            "digest": best.digest,
            "run_id": best.run_id,
            "spec": best.spec.model_dump(mode="json"),
            "metrics": best.metrics,
        }
        (folder / "best.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    pictures = folder / "figures"
    pictures.mkdir()
    searched = [r for r in records if r.selector == study.spec.search.selector]
    for name, figure in search_figures(study, searched).items():
        figure.savefig(pictures / f"{name}.png", bbox_inches="tight", dpi=120)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a study the way Ctrl-C does: runs are closed on the way out.

    To be entered after Ray has started: ``ray.init`` sets a handler of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
