"""Sends what the driver of a study has for the tracking store, now or once the store responds."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from mmlab.datasets.cells import Cells
from mmlab.spec.trial import TrialSpec
from mmlab.tracking.ended_trial import EndedTrial, scored
from mmlab.tracking.lease import HEARTBEAT_INTERVAL, LeaseLostError, renew_lease
from mmlab.tracking.study_run import StudyRun
from mmlab.tracking.trial_run import TrialRun
from mmlab.tracking.unsent_trials import UnsentTrials, waiting_files
from mmlab.trial.objective import SCORE
from mmlab.trial.outcome import Outcome

_log = logging.getLogger(__name__)

#: Shortest and longest pause in seconds before the next attempt to reach the tracking store; at
#: the end of a study all are short.
_PAUSES = (1.0, 30.0)
#: Seconds between writes of the epochs of running trials.
_EPOCH_INTERVAL = 5.0
#: Seconds that the end of an outbox waits for the trial that is being sent.
_SECONDS_TO_STOP = 5.0


@dataclass(frozen=True)
class RunningTrial:
    """A running trial and those of its epochs that are not in the tracking store yet."""

    spec: TrialSpec
    digest: str
    parent: str
    started_ms: int
    epochs: list[dict[str, float]]


class Outbox:
    """The thread that sends the trials of a study to the tracking store.

    Ended trials (:meth:`put`) are written to disk first; the thread retries while the store does
    not respond, and sending a trial twice is harmless. The epochs of running trials
    (:meth:`report`) are in memory alone. The thread also sends heartbeats. Once another driver has
    taken the study over, nothing is sent any more.

    Parameters
    ----------
    on_lost
        Called once, from the thread, with a sentence, when the study was taken over.

    Attributes
    ----------
    unsent
        Ended trials that are not in the tracking store yet.
    last_error
        Error of the last attempt to send a trial; empty after a success.
    """

    def __init__(
        self,
        study: StudyRun[Any],
        cells: Cells,
        on_lost: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.study = study
        self.cells = cells
        self._on_lost = on_lost
        self.unsent = UnsentTrials(waiting_files(study))
        self.last_error = ""
        self._running: dict[str, RunningTrial] = {}
        self._runs: dict[str, TrialRun] = {}
        #: Digests of the trials that have a run; None if the store has to be asked.
        self._stored: set[str] | None = None
        #: Best score so far of each method.
        self._best: dict[str, float] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        #: Set at the end of a study, to try again sooner.
        self._draining = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="outbox", daemon=True)
        self._renewed_at = time.monotonic()
        self._epochs_sent_at = -math.inf
        #: Guards the running trials.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        # The outbox retries by itself; MLflow's own seven retries would take four minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._draining.set()
        self._wake.set()
        self._thread.join(timeout=_SECONDS_TO_STOP)

    def report(
        self, spec: TrialSpec, digest: str, parent: str, epoch: dict[str, float], seconds: float
    ) -> None:
        """Keep an epoch of a running trial, to be sent by the thread within seconds.

        Only epochs of trials that have not been put are sent. ``seconds`` is how long the trial
        has been running.
        """
        started_ms = round(1000 * (time.time() - seconds))
        with self._lock:
            new = RunningTrial(spec, digest, parent, started_ms, [])
            self._running.setdefault(digest, new).epochs.append(scored(spec, epoch))

    def put(self, trial: EndedTrial) -> None:
        """Write an ended trial to disk, to be sent by the thread."""
        with self._lock:
            self._running.pop(trial.digest, None)
        self.unsent.put(trial)
        self._wake.set()

    def drain(self, timeout: float = 30.0) -> int:
        """Wait until all trials are sent, or until ``timeout`` seconds pass without progress.

        Returns
        -------
        Number of trials that could not be sent; :attr:`last_error` is the reason.
        """
        self._draining.set()
        left, progress_at = len(self.unsent), time.monotonic()
        while left and time.monotonic() - progress_at < timeout:
            self._wake.set()
            time.sleep(0.05)
            now = len(self.unsent)
            if now < left:
                left, progress_at = now, time.monotonic()
        return left

    def _send_all(self) -> None:
        pause = _PAUSES[0]
        while not self._stop.is_set():
            self._wake.wait(_EPOCH_INTERVAL)
            self._wake.clear()
            try:
                self._renew_lease()
                for send in (self._send_ended, self._send_running):
                    for _ in send():
                        self.last_error, pause = "", _PAUSES[0]
                        if self._stop.is_set():
                            return
                        self._renew_lease()
            except LeaseLostError as lost:
                self.last_error = str(lost)
                self._on_lost(self.last_error)
                return
            except Exception as error:  # a missing server or network raises many types of errors
                self.last_error = f"{type(error).__name__}: {error}"
                # The store may have done what it did not confirm.
                self._stored = None
                _log.debug("cannot send a trial to the tracking store; retrying", exc_info=True)
                if self._draining.wait(pause):
                    self._stop.wait(_PAUSES[0])
                self._wake.set()
                pause = min(2 * pause, _PAUSES[1])

    def _renew_lease(self) -> None:
        """Send a heartbeat if it is time: before anything is sent after a long pause, too."""
        if time.monotonic() - self._renewed_at > HEARTBEAT_INTERVAL:
            renew_lease(self.study.store, self.study.name, self.study.run_id)
            self._renewed_at = time.monotonic()

    def _send_ended(self) -> Iterator[None]:
        """Send the ended trials; yield after each."""
        for trial in self.unsent.take():
            self._send(trial)
            yield

    def _send_running(self) -> Iterator[None]:
        """Send the new epochs of the running trials every few seconds; yield after each trial."""
        if time.monotonic() - self._epochs_sent_at < _EPOCH_INTERVAL:
            return
        self._epochs_sent_at = time.monotonic()
        with self._lock:
            running = [
                replace(trial, epochs=list(trial.epochs))
                for trial in self._running.values()
                if trial.epochs
            ]
        for trial in running:
            run = self._runs.pop(trial.digest, None) or self._open(trial)
            run.add_epochs(trial.epochs)
            run.write()
            self._runs[trial.digest] = run
            with self._lock:
                kept = self._running.get(trial.digest)
                if kept is not None:
                    del kept.epochs[: len(trial.epochs)]
            yield

    def _open(self, trial: EndedTrial | RunningTrial) -> TrialRun:
        """Reopen the run of a trial, or create it if there is none."""
        study, store = self.study, self.study.store
        if self._stored is None:
            runs = store.trial_runs(study.name, study.experiment_id)
            self._stored = {run.data.tags.get("mmlab.digest", "") for run in runs}
        if trial.digest in self._stored:
            tags = {"mmlab.study": study.name, "mmlab.digest": trial.digest}
            for run in store.search(tags, experiment_ids=[study.experiment_id]):
                return TrialRun.reopen(store, run, trial.spec, frozenset({Outcome.COMPLETE}))
        self._stored.add(trial.digest)
        return TrialRun.create(
            store,
            study.experiment_id,
            trial.spec,
            trial.digest,
            self.cells,
            (study.name, trial.parent),
            trial.started_ms,
        )

    def _send(self, trial: EndedTrial) -> None:
        run = self._runs.pop(trial.digest, None) or self._open(trial)
        if run.ended:
            return
        run.add_epochs(trial.epochs, trial.at_ms)
        if trial.result is not None:
            draw = self._is_best(trial)
            run.add_result(trial.result, trial.final_scores, trial.at_ms, draw=draw)
        run.close(trial.outcome, trial.reason, trial.at_ms)

    def _is_best(self, trial: EndedTrial) -> bool:
        """Return whether a complete trial of a search is the best of its method so far.

        In a comparison the run of the method has the figures of all its replicates.
        """
        score = trial.final_scores.get(SCORE, -math.inf)
        is_best = score > self._best.get(trial.spec.selector, -math.inf)
        if is_best:
            self._best[trial.spec.selector] = score
        return is_best
