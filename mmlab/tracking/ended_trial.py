"""Ended trials as the driver passes them on: to disk, to the tracking store, to its own tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from mmlab.spec.trial import TrialSpec
from mmlab.system.redaction import redact
from mmlab.tracking.trial_record import TrialRecord
from mmlab.trial.objective import OBJECTIVE, SCORE, final_objective
from mmlab.trial.outcome import Outcome
from mmlab.trial.result import TrialResult


@dataclass(frozen=True)
class EndedTrial:
    """A trial that ended: complete with its result, stopped early or failed with a reason.

    Attributes
    ----------
    spec, digest
        The specification with defaults filled in, and its digest.
    parent
        Id of the run below which the trial's run is: that of its method or search; empty if there
        is none.
    outcome
        How it ended.
    result
        None unless it is complete.
    reason
        Why it was stopped, or failed.
    at_ms
        Time of its end, Unix time in milliseconds.
    unfinished
        Metrics of each epoch before it was stopped or failed.
    seconds
        How long it ran.
    """

    spec: TrialSpec
    digest: str
    parent: str
    outcome: Outcome
    result: TrialResult | None
    reason: str
    at_ms: int
    unfinished: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def started_ms(self) -> int:
        """Time of its start, Unix time in milliseconds."""
        return self.at_ms - round(1000 * self.seconds)

    @property
    def epochs(self) -> list[dict[str, float]]:
        """Metrics of each epoch, as :attr:`TrialResult.history`; in a search with their score."""
        rows: list[Any] = self.unfinished
        if self.result is not None:
            rows = self.result.history.to_dict(orient="records")
        return [scored(self.spec, row) for row in rows]

    @property
    def final_scores(self) -> dict[str, float]:
        """Final values of the metrics that a search maximises; empty unless it is of a search."""
        if self.result is None or self.spec.protocol != "search":
            return {}
        score = self.result.metrics[final_objective(self.spec.selector)]
        # With epochs, the last one has the objective.
        return {SCORE: score} | ({} if len(self.result.history) else {OBJECTIVE: score})

    def record(self) -> TrialRecord:
        """Return the trial as if it was read from the tracking store, without the id of a run."""
        final = {} if self.result is None else self.result.metrics
        last = self.epochs[-1] if self.epochs else {}
        metrics = last | final | self.final_scores
        selector, reason = self.spec.selector, self.reason
        return TrialRecord("", self.digest, selector, self.outcome, self.spec, metrics, reason)

    def to_json(self) -> str:
        """Return the trial as one JSON document."""
        content: dict[str, Any] = {
            "digest": self.digest,
            "parent": self.parent,
            "outcome": self.outcome,
            "reason": redact(self.reason),
            "at_ms": self.at_ms,
            "spec": self.spec.model_dump(mode="json"),
            "result": None if self.result is None else self.result.to_json(),
            "unfinished": self.unfinished,
            "seconds": self.seconds,
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> EndedTrial:
        """Read a document written by :meth:`to_json`, or by the versions that had no outcome."""
        content = json.loads(text)
        default = Outcome.FAILED if content["result"] is None else Outcome.COMPLETE
        content["outcome"] = Outcome(content.get("outcome", default))
        content["spec"] = TrialSpec.model_validate(content["spec"])
        if content["result"] is not None:
            content["result"] = TrialResult.from_json(content["result"])
        return cls(**content)


def scored(spec: TrialSpec, epoch: dict[str, float]) -> dict[str, float]:
    """Return the metrics of an epoch of a trial, in a search with their score."""
    return epoch | {SCORE: epoch[OBJECTIVE]} if spec.protocol == "search" else epoch
