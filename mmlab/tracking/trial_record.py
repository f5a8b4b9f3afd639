"""Trials as read from the tracking store: their outcome, specification and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mlflow.entities import Run

from mmlab.spec.trial import TrialSpec
from mmlab.tracking.spec_tags import spec_json
from mmlab.trial.run import OBJECTIVE


class Outcome(StrEnum):
    """State of a trial, stored in the tag ``mmlab.outcome``."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


#: Outcomes of ended trials, which a resumed study does not run again.
ENDED = frozenset({Outcome.COMPLETE, Outcome.STOPPED, Outcome.FAILED})


@dataclass(frozen=True)
class TrialRecord:
    """A trial as read from the tracking store; ``metrics`` are the last values.

    ``is_open`` is True while the status of its run is RUNNING. An ended trial can still be open,
    because its process may be killed after it sets the outcome and before it sets the status.
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
        """Last validation score; None if the trial never reported one."""
        return self.metrics.get(OBJECTIVE)


def read_record(run: Run) -> TrialRecord:
    """Return the record of a trial from its run."""
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
