"""Trials as MLflow runs: creating, logging to and closing them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from mmlab.datasets.cells import Cells
from mmlab.spec.constraints import ConstrainedSpec
from mmlab.spec.trial import TrialSpec
from mmlab.system.threads import limit_threads
from mmlab.tracking.metric_points import metric_points
from mmlab.tracking.run_owner import owner_tags
from mmlab.tracking.spec_tags import spec_tags
from mmlab.tracking.store import TrackingStore
from mmlab.tracking.trial_page import describe_trial, write_result
from mmlab.tracking.trial_record import ENDED, Outcome, outcome_of
from mmlab.tracking.unrecorded_result import UnrecordedResultError
from mmlab.trial.objective import SCORE, knn_accuracy
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


def spec_params(spec: TrialSpec) -> dict[str, Any]:
    """Return the specification as flat MLflow params."""
    return {
        "dataset": spec.data.title,
        "selector": spec.selector,
        "n_markers": spec.n_markers,
        "recipe": spec.recipe,
        "protocol": spec.protocol,
        "noise_level": spec.noise.level,
        "noise_kind": spec.noise.kind,
        **constraint_params(spec),
        "replicates": spec.replicates,
        "first_replicate": spec.first_replicate,
        "seed": spec.seed,
        **spec.params,
    }


def constraint_params(spec: TrialSpec | ConstrainedSpec) -> dict[str, Any]:
    """Return the panel constraints as flat MLflow params; unset constraints are left out.

    ``include`` and ``exclude`` are always there.
    """
    required = spec.constraints.model_dump(exclude_defaults=True)
    for name in ("groups", "weights"):
        if name in required:
            required[name] = ", ".join(f"{gene}: {value}" for gene, value in required[name].items())
    return {"include": ", ".join(spec.include), "exclude": ", ".join(spec.exclude), **required}


class TrialRun:
    """Run of a trial to which its results are logged.

    ``ended`` is True if the trial had ended before and is not to be run again.
    """

    def __init__(
        self, store: TrackingStore, run_id: str, last_step: int, ended: bool = False
    ) -> None:
        self.store = store
        self.run_id = run_id
        self.ended = ended
        self._last_step = last_step
        self._unsent: list[Metric] = []
        self._sent_at = -math.inf

    @classmethod
    def open(
        cls,
        store: TrackingStore,
        experiment_id: str,
        spec: TrialSpec,
        digest: str,
        cells: Cells,
        parent: tuple[str, str] | None = None,
        final: frozenset[Outcome] = ENDED,
    ) -> TrialRun:
        """Reopen the run with this digest in a study, or create it if there is none.

        Parameters
        ----------
        parent
            Name of the study and id of the parent run; None for a trial without a study, whose
            run is always new.
        final
            Outcomes with which an existing run counts as ended and is not reopened.
        """
        if parent is not None:
            own_tags = {"mmlab.study": parent[0], "mmlab.digest": digest}
            for run in store.search(own_tags, experiment_ids=[experiment_id]):
                run_id, ended = run.info.run_id, outcome_of(run) in final
                if not ended:
                    store.reopen(run_id)
                    store.set_tags(run_id, {"mmlab.outcome": Outcome.RUNNING})
                return cls(store, run_id, int(run.data.metrics.get("epoch", 0)), ended)
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
        run_id = store.create_run(experiment_id, f"{spec.selector} {digest[:8]}", tags)
        store.log_params(run_id, spec_params(spec))
        store.log_dataset(run_id, cells)
        return cls(store, run_id, 0)

    def log_epoch(self, metrics: dict[str, float]) -> None:
        """Log the metrics of an epoch; epochs are written together every few seconds."""
        self.add_epochs([metrics])
        if time.monotonic() - self._sent_at > _SECONDS_BETWEEN_WRITES:
            self.write()

    def add_epochs(self, epochs: Iterable[dict[str, float]], at_ms: int | None = None) -> None:
        """Add epochs to those that :meth:`write` writes, unless the run has them already.

        They are dated ``at_ms`` (Unix time in milliseconds), by default now.
        """
        for epoch in epochs:
            step = int(epoch["epoch"])
            if step > self._last_step:
                self._last_step = step
                # The number of the epoch comes last: a run that has it has the others, too.
                metrics = {name: value for name, value in epoch.items() if name != "epoch"}
                self._unsent += metric_points(metrics | {"epoch": step}, step, at_ms)

    def write(self, *more: Metric) -> None:
        """Write the pending epochs and the metrics ``more``."""
        self.store.log_points(self.run_id, [*self._unsent, *more])
        self._unsent.clear()
        self._sent_at = time.monotonic()

    def log_result(
        self,
        result: TrialResult,
        extra: dict[str, float] | None = None,
        at_ms: int | None = None,
        *,
        draw: bool = True,
    ) -> None:
        """Log the result: metrics (and ``extra``), panel, replicates, specification, figures.

        The metrics are dated ``at_ms`` (Unix time in milliseconds), by default now. Without
        ``draw`` there are no confusion matrices.
        """
        self.write(*_final_points(result, extra or {}, at_ms))
        self.store.log_files(self.run_id, lambda folder: write_result(result, folder, draw))
        self.store.set_tags(self.run_id, {"mlflow.note.content": describe_trial(result)})


def _final_points(
    result: TrialResult, extra: dict[str, float], at_ms: int | None = None
) -> list[Metric]:
    """Return the final metrics of a trial, with its score, wall times and peak memory."""
    fit_seconds = float(result.replicates["fit_seconds"].mean())
    cost = {"seconds": result.seconds, "fit_seconds": fit_seconds, **result.peak_memory}
    metrics = {SCORE: knn_accuracy(result)} | result.metrics | cost | extra
    return metric_points(metrics, len(result.history), at_ms)


def run_tracked(store: TrackingStore, spec: TrialSpec, cells: Cells) -> tuple[str, TrialResult]:
    """Run a trial in this process and log it as a run without a study.

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
    run = TrialRun.open(store, experiment_id, trial.spec, trial.digest, cells)
    outcome, reason = Outcome.INTERRUPTED, ""
    try:
        with limit_threads(1):
            for epoch in trial.epochs():
                # Epochs that the store does not take now are sent with later ones.
                with suppress(*STORE_ERRORS):
                    run.log_epoch(epoch)
            result = trial.result()
        try:
            run.log_result(result)
        except STORE_ERRORS as error:
            raise UnrecordedResultError(store, result, error) from error
        outcome = Outcome.COMPLETE
    except UnrecordedResultError as error:
        outcome, reason = Outcome.FAILED, str(error)
        raise
    except Exception as error:
        outcome, reason = Outcome.FAILED, f"{type(error).__name__}: {error}"
        with suppress(*STORE_ERRORS):
            run.write()
        raise
    finally:
        # The next study on the store closes the run if the store does not answer now.
        with suppress(*STORE_ERRORS):
            close_trial(store, run.run_id, outcome, reason)
    return run.run_id, result


def close_trial(store: TrackingStore, run_id: str, outcome: Outcome, reason: str = "") -> None:
    """Set the outcome and the final status of a trial's run, with the reason if not complete."""
    tags: dict[str, str] = {"mmlab.outcome": outcome}
    if reason:
        tags |= {"mmlab.reason": reason[:4000], "mlflow.note.content": reason[:4000]}
    store.close(run_id, _STATUS[outcome], tags)
