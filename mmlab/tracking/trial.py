"""One trial as one MLflow run, nested under its study."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlflow.entities import Metric, Run

from mmlab.datasets.cells import Cells
from mmlab.spec.constraints import ConstrainedSpec
from mmlab.spec.trial import TrialSpec
from mmlab.system.threads import limit_threads
from mmlab.tracking.owner import owner_tags
from mmlab.tracking.spec_tags import spec_json, spec_tags
from mmlab.tracking.store import TrackingStore, metric_points
from mmlab.tracking.trial_page import describe_trial, write_result
from mmlab.trial.result import TrialResult
from mmlab.trial.run import OBJECTIVE, Trial


class Outcome(StrEnum):
    """How a trial stands; kept in the tag ``mmlab.outcome``."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


#: Only a trial that ran to its end may look finished.
_STATUS = {
    Outcome.COMPLETE: "FINISHED",
    Outcome.STOPPED: "KILLED",
    Outcome.FAILED: "FAILED",
    Outcome.INTERRUPTED: "KILLED",
}

#: Epochs of a trial are shown this often: a write costs ten milliseconds and more.
_SECONDS_BETWEEN_WRITES = 5.0

#: Outcomes that a resumed study does not compute again.
ENDED = frozenset({Outcome.COMPLETE, Outcome.STOPPED, Outcome.FAILED})


@dataclass(frozen=True)
class TrialRecord:
    """What the store knows of a trial; metrics are the last values.

    ``is_open`` says that its run still counts as running. That can outlast the outcome: a process
    may be killed between the two.
    """

    run_id: str
    digest: str
    selector: str
    outcome: Outcome
    spec: TrialSpec
    metrics: dict[str, float]
    reason: str
    is_open: bool

    @property
    def score(self) -> float | None:
        """Last validation score, None for a trial that never reported one."""
        return self.metrics.get(OBJECTIVE)


def read_record(run: Run) -> TrialRecord:
    """Record of a trial's run."""
    tags = run.data.tags
    return TrialRecord(
        run_id=run.info.run_id,
        digest=tags["mmlab.digest"],
        selector=tags["mmlab.selector"],
        outcome=Outcome(tags["mmlab.outcome"]),
        spec=TrialSpec.model_validate_json(spec_json(tags)),
        metrics=dict(run.data.metrics),
        reason=tags.get("mmlab.reason", ""),
        is_open=run.info.status == "RUNNING",
    )


def spec_params(spec: TrialSpec) -> dict[str, Any]:
    """The specification as flat MLflow params."""
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
    """What panels have to hold as flat MLflow params; of the constraints, those that are asked."""
    asked = spec.constraints.model_dump(exclude_defaults=True)
    for name in ("groups", "weights"):
        if name in asked:
            asked[name] = ", ".join(f"{gene}: {value}" for gene, value in asked[name].items())
    return {"include": ", ".join(spec.include), "exclude": ", ".join(spec.exclude), **asked}


class TrialRun:
    """The run of a trial while it is worked on; made in the process that trains."""

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
        """Run of the trial with this digest: the one that exists in the study, or a new one.

        Parameters
        ----------
        parent
            Name of the study and the run id of its parent; None for a trial of its own.
        final
            Outcomes with which an existing run has ended; with others it is opened again.
        """
        if parent is not None:
            condition = f"tags.`mmlab.study` = '{parent[0]}' and tags.`mmlab.digest` = '{digest}'"
            for run in store.search(condition, [experiment_id]):
                run_id, ended = run.info.run_id, read_record(run).outcome in final
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

    def log_epoch(self, metrics: dict[str, float], *, at_once: bool = False) -> None:
        """Take up an epoch's metrics, unless an earlier attempt at this run has written them.

        They are written with others, every few seconds; ``at_once`` where the trial may be
        stopped after this epoch.
        """
        step = int(metrics["epoch"])
        if step > self._last_step:
            self._last_step = step
            self._unsent += metric_points(metrics, step)
        if at_once or time.monotonic() - self._sent_at > _SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self, *more: Metric) -> None:
        """Write the epochs that are not written yet, and ``more``, in one request."""
        self.store.log_points(self.run_id, [*self._unsent, *more])
        self._unsent.clear()
        self._sent_at = time.monotonic()

    def log_result(self, result: TrialResult, more: dict[str, float] | None = None) -> None:
        """Write metrics (and ``more``), panel, replicates, resolved specification, figures."""
        self.write(*_final_points(result, more or {}))
        self._log_files(result, draw=True)

    def log_all(self, result: TrialResult, at_ms: int) -> None:
        """Write a result with all its epochs, as of a time; figures are left to the parent run."""
        epochs: list[Any] = result.history.to_dict(orient="records")
        points = [p for row in epochs for p in metric_points(row, int(row["epoch"]), at_ms)]
        self.store.log_points(self.run_id, points + _final_points(result, {}, at_ms))
        self._log_files(result, draw=False)

    def _log_files(self, result: TrialResult, *, draw: bool) -> None:
        self.store.log_files(self.run_id, lambda folder: write_result(result, folder, draw))
        self.store.set_tags(self.run_id, {"mlflow.note.content": describe_trial(result)})


def _final_points(
    result: TrialResult, more: dict[str, float], at_ms: int | None = None
) -> list[Metric]:
    cost = {"seconds": result.seconds, **result.peak_memory}
    return metric_points(result.metrics | cost | more, len(result.history), at_ms)


def run_tracked(store: TrackingStore, spec: TrialSpec, cells: Cells) -> tuple[str, TrialResult]:
    """Run one trial in this process, as a run of its own.

    Returns
    -------
    The run's id and the result.
    """
    trial = Trial(spec, cells)
    experiment_id = store.experiment(cells.name)
    run = TrialRun.open(store, experiment_id, trial.spec, trial.digest, cells)
    outcome, reason = Outcome.INTERRUPTED, ""
    try:
        with limit_threads(1):
            for epoch in trial.epochs():
                run.log_epoch(epoch)
            result = trial.result()
        run.log_result(result)
        outcome = Outcome.COMPLETE
    except Exception as error:
        run.write()
        outcome, reason = Outcome.FAILED, f"{type(error).__name__}: {error}"
        raise
    finally:
        close_trial(store, run.run_id, outcome, reason)
    return run.run_id, result


def close_trial(store: TrackingStore, run_id: str, outcome: Outcome, reason: str = "") -> None:
    """Set the final status of a trial's run, with the reason if it did not complete."""
    tags: dict[str, str] = {"mmlab.outcome": outcome}
    if reason:
        tags |= {"mmlab.reason": reason[:4000], "mlflow.note.content": reason[:4000]}
    store.close(run_id, _STATUS[outcome], tags)
