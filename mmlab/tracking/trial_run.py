"""Trials as MLflow runs: creating, logging to and closing them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException

from mmlab.datasets.cells import Cells
from mmlab.spec.trial import TrialSpec
from mmlab.system.threads import limit_threads
from mmlab.tracking.metric_points import metric_points
from mmlab.tracking.run_owner import owner_tags
from mmlab.tracking.spec_params import spec_params
from mmlab.tracking.spec_tags import spec_tags
from mmlab.tracking.store import TrackingStore
from mmlab.tracking.trial_page import describe_trial, write_result
from mmlab.tracking.trial_record import outcome_of
from mmlab.tracking.unrecorded_result import UnrecordedResultError
from mmlab.trial.objective import SCORE, knn_accuracy
from mmlab.trial.outcome import ENDED, Outcome
from mmlab.trial.result import TrialResult
from mmlab.trial.run import Trial

#: Final status of an MLflow run; only a complete trial is FINISHED.
_STATUS = {
    Outcome.COMPLETE: "FINISHED",
    Outcome.STOPPED: "KILLED",
    Outcome.FAILED: "FAILED",
    Outcome.INTERRUPTED: "KILLED",
}

#: Errors of a tracking store that does not answer, or on a disk that is full.
STORE_ERRORS = (MlflowException, OSError)

#: Epochs are logged this often, because a request takes ten milliseconds or more.
_SECONDS_BETWEEN_WRITES = 5.0


class TrialRun:
    """Run of a trial to which its results are logged.

    Params, metrics and tags are collected and written together, because a request to a server
    takes ten milliseconds or more.

    Attributes
    ----------
    ended
        The trial had ended before and is not to be run again.
    """

    def __init__(
        self,
        store: TrackingStore,
        run: tuple[str, str],
        last_step: int = 0,
        ended: bool = False,
        params: dict[str, Any] | None = None,
    ) -> None:
        self.store = store
        self.run_id, self._artifact_uri = run
        self.ended = ended
        self._last_step = last_step
        self._points: list[Metric] = []
        self._params = params or {}
        self._tags: dict[str, str] = {}
        self._written_at = -math.inf

    @classmethod
    def create(
        cls,
        store: TrackingStore,
        experiment_id: str,
        spec: TrialSpec,
        digest: str,
        cells: Cells,
        parent: tuple[str, str] | None = None,
        started_ms: int | None = None,
    ) -> TrialRun:
        """Create the run of a trial that has none.

        Parameters
        ----------
        parent
            Name of the study and id of the parent run; None for a trial without a study.
        started_ms
            Unix time in milliseconds at which the trial started, by default now.
        """
        tags = {
            "mmlab.kind": "trial",
            "mmlab.selector": spec.selector,
            "mmlab.digest": digest,
            "mmlab.fingerprint": cells.fingerprint,
            "mmlab.outcome": Outcome.RUNNING,
            **spec_tags(spec),
        }
        if parent is not None:
            tags |= {"mmlab.study": parent[0], "mlflow.parentRunId": parent[1]}
        else:
            tags |= owner_tags()
        run = store.start_run(experiment_id, f"{spec.selector} {digest[:8]}", tags, started_ms)
        return cls(store, run, params=spec_params(spec))

    @classmethod
    def reopen(
        cls, store: TrackingStore, run: Run, spec: TrialSpec, final: frozenset[Outcome] = ENDED
    ) -> TrialRun:
        """Reopen the run of a trial, unless it was closed with one of the outcomes ``final``."""
        ended = outcome_of(run) in final and run.info.status != "RUNNING"
        if not ended:
            store.reopen(run.info.run_id)
            store.set_tags(run.info.run_id, {"mmlab.outcome": Outcome.RUNNING})
        params = {} if run.data.params else spec_params(spec)
        last_step = int(run.data.metrics.get("epoch", 0))
        return cls(store, (run.info.run_id, run.info.artifact_uri), last_step, ended, params)

    def log_epoch(self, metrics: dict[str, float]) -> None:
        """Log the metrics of an epoch; epochs are written together every few seconds."""
        self.add_epochs([metrics])
        if time.monotonic() - self._written_at > _SECONDS_BETWEEN_WRITES:
            self.write()

    def add_epochs(self, epochs: Iterable[dict[str, float]], at_ms: int | None = None) -> None:
        """Add epochs to what :meth:`write` writes, unless the run has them already.

        They are dated ``at_ms`` (Unix time in milliseconds), by default now.
        """
        for epoch in epochs:
            step = int(epoch["epoch"])
            if step > self._last_step:
                self._last_step = step
                # The number of the epoch comes last: a run that has it has the others, too.
                metrics = {name: value for name, value in epoch.items() if name != "epoch"}
                self._points += metric_points(metrics | {"epoch": step}, step, at_ms)

    def write(self) -> None:
        """Write what was collected."""
        self.store.log(self.run_id, self._points, self._params, self._tags)
        self._points, self._params, self._tags = [], {}, {}
        self._written_at = time.monotonic()

    def add_result(
        self,
        result: TrialResult,
        extra: dict[str, float] | None = None,
        at_ms: int | None = None,
        *,
        draw: bool = True,
    ) -> None:
        """Log the files of a result; add its metrics (and ``extra``) to what :meth:`write` writes.

        The metrics are dated ``at_ms`` (Unix time in milliseconds), by default now. For ``draw``
        see :func:`mmlab.tracking.trial_page.write_result`.
        """
        self.store.log_files(
            self.run_id, lambda folder: write_result(result, folder, draw), self._artifact_uri
        )
        self._points += _final_points(result, extra or {}, at_ms)
        self._tags["mlflow.note.content"] = describe_trial(result)

    def close(self, outcome: Outcome, reason: str = "", at_ms: int | None = None) -> None:
        """Write what was collected and the outcome, with the reason if not complete; close the run.

        It ended ``at_ms`` (Unix time in milliseconds), by default now.
        """
        self._tags |= _outcome_tags(outcome, reason)
        self.write()
        self.store.close(self.run_id, _STATUS[outcome], ended_ms=at_ms)


def _final_points(
    result: TrialResult, extra: dict[str, float], at_ms: int | None = None
) -> list[Metric]:
    """Return the final metrics of a trial, with its score, wall times and peak memory."""
    fit_seconds = float(result.replicates["fit_seconds"].mean())
    cost = {"seconds": result.seconds, "fit_seconds": fit_seconds, **result.peak_memory}
    metrics = {SCORE: knn_accuracy(result)} | result.metrics | cost | extra
    return metric_points(metrics, len(result.history), at_ms)


def run_tracked(
    store: TrackingStore,
    spec: TrialSpec,
    cells: Cells,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> tuple[str, TrialResult]:
    """Run a trial in this process and log it as a run without a study.

    ``on_epoch`` is called with the metrics of every epoch.

    Returns
    -------
    Id of the run and the result.

    Raises
    ------
    UnrecordedResultError
        The store did not take the result; it is in a local file.
    """
    trial = Trial(spec, cells)
    experiment_id = store.experiment(cells.name)
    run = TrialRun.create(store, experiment_id, trial.spec, trial.digest, cells)
    run.write()
    store.log_dataset(run.run_id, cells)
    outcome, reason = Outcome.INTERRUPTED, ""
    try:
        with limit_threads(1):
            for epoch in trial.epochs():
                # Epochs that the store does not take now are sent with later ones.
                with suppress(*STORE_ERRORS):
                    run.log_epoch(epoch)
                if on_epoch is not None:
                    on_epoch(epoch)
            result = trial.result()
        try:
            run.add_result(result)
            run.write()
        except STORE_ERRORS as error:
            raise UnrecordedResultError(store, result, error) from error
        outcome = Outcome.COMPLETE
    except UnrecordedResultError as error:
        outcome, reason = Outcome.FAILED, str(error)
        raise
    except Exception as error:
        outcome, reason = Outcome.FAILED, f"{type(error).__name__}: {error}"
        raise
    finally:
        # The next study on the store closes the run if the store does not answer now.
        with suppress(*STORE_ERRORS):
            run.close(outcome, reason)
    return run.run_id, result


def close_trial(store: TrackingStore, run_id: str, outcome: Outcome, reason: str = "") -> None:
    """Set the outcome and the final status of a trial's run, with the reason if not complete."""
    store.close(run_id, _STATUS[outcome], _outcome_tags(outcome, reason))


def _outcome_tags(outcome: Outcome, reason: str) -> dict[str, str]:
    tags: dict[str, str] = {"mmlab.outcome": outcome}
    if reason:
        tags |= {"mmlab.reason": reason[:4000], "mlflow.note.content": reason[:4000]}
    return tags
