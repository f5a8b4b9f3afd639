"""Trials as read from the tracking store: their outcome, specification and metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from mlflow.entities import Run

from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import TrialSpec
from mmlab.tracking.spec_tags import DAMAGED_SPEC, spec_json
from mmlab.trial.outcome import Outcome
from mmlab.trial.run import OBJECTIVE

_log = logging.getLogger(__name__)


def outcome_of(run: Run) -> Outcome:
    """Return the outcome of a trial from its run; a tag that no version wrote is INTERRUPTED."""
    try:
        return Outcome(run.data.tags.get("mmlab.outcome", ""))
    except ValueError:
        return Outcome.INTERRUPTED


@dataclass(frozen=True)
class TrialRecord:
    """A trial as read from the tracking store; ``metrics`` are the last values."""

    run_id: str
    digest: str
    selector: str
    outcome: Outcome
    spec: TrialSpec
    metrics: dict[str, float]
    reason: str

    @property
    def score(self) -> float | None:
        """Last validation score; None if the trial never reported one."""
        return self.metrics.get(OBJECTIVE)


def baseline_scores(spec: SearchSpec, records: Iterable[TrialRecord]) -> dict[str, float]:
    """Return the validation scores of the complete baselines of a search, best first."""
    scores = {
        record.selector: record.score
        for record in records
        if record.selector != spec.search.selector
        and record.outcome == Outcome.COMPLETE
        and record.score is not None
    }
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def baseline_ahead(scores: dict[str, float], best: TrialRecord) -> str:
    """Return a sentence on the best baseline if it is better than the best trial; else empty."""
    for name, score in scores.items():
        if best.score is not None and score > best.score:
            return f"Baseline {name} has {score:.4f}: better than the best trial."
    return ""


def read_record(run: Run) -> TrialRecord | None:
    """Return the record of a trial from its run; None, with a warning, if its tags are damaged."""
    tags = run.data.tags
    try:
        spec = TrialSpec.model_validate_json(spec_json(tags))
    except DAMAGED_SPEC:
        _log.warning("the specification of trial run %s is damaged: left out", run.info.run_id)
        return None
    return TrialRecord(
        run_id=run.info.run_id,
        digest=tags.get("mmlab.digest", ""),
        selector=spec.selector,
        outcome=outcome_of(run),
        spec=spec,
        metrics=dict(run.data.metrics),
        reason=tags.get("mmlab.reason", ""),
    )
