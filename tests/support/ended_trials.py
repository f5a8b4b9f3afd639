"""Ended trials of a comparison, as its driver passes them on."""

from __future__ import annotations

from mmlab.spec.comparison import ComparisonSpec
from mmlab.tracking import EndedTrial, MethodRun, StudyRun
from mmlab.trial.outcome import Outcome
from mmlab.trial.result import TrialResult


def complete_trial(study: StudyRun[ComparisonSpec], result: TrialResult) -> EndedTrial:
    """Return a complete trial of the first method, whose run is opened."""
    method = MethodRun.open(study, study.spec.methods[0])
    return EndedTrial(
        result.spec, result.digest, method.run_id, Outcome.COMPLETE, result, "", at_ms=1
    )
