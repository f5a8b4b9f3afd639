"""The Tune callback of a comparison: records ended trials and updates the progress display."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial

from mmlab.schedule.progress import Progress, TrialProgress
from mmlab.schedule.ray_tune_run import Recorder
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import EndedTrial
from mmlab.trial.outcome import Outcome
from mmlab.trial.result import TrialResult

#: Records a trial that has ended; called before the progress display counts the trial.
OnEnd = Callable[[EndedTrial], None]


class ComparisonRecorder(Recorder):
    """Passes each ended trial to ``on_end`` and all reports to the progress display.

    It runs in the driver. The reports come from :class:`mmlab.schedule.actor.ComparisonActor`.

    Parameters
    ----------
    fingerprint
        That of the cells, which is part of the digest of a trial.
    """

    def __init__(self, progress: Progress, on_end: OnEnd, fingerprint: str) -> None:
        super().__init__()
        self.progress = progress
        self.on_end = on_end
        self.fingerprint = fingerprint

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Trial, result: Any, **_: Any
    ) -> None:
        """Show the latest reports of a group; record its trials once the group is done."""
        group = trial.config["group"]
        for report, requested_spec in zip(result["trials"], group["trials"], strict=True):
            self._show(trial, report)
            if not result["done"]:
                continue
            # Tune keeps the last report of every trial in memory; drop the large result from it.
            text = report.pop("result")
            trial_result = TrialResult.from_json(text) if text else None
            if trial_result is None:
                spec = TrialSpec.model_validate(requested_spec)
            else:
                spec = trial_result.spec
            self._end(trial, spec, report, trial_result)

    def _show(self, trial: Trial, report: dict[str, Any]) -> None:
        group = trial.config["group"]
        state = TrialProgress(
            digest=report["digest"][:8],
            method=group["method"],
            outcome=Outcome(report["outcome"]),
            epoch=report["epoch"],
            score=report["score"],
            params={},
            # The trials of a group ran at the same time.
            seconds=report["seconds"] / len(group["trials"]),
        )
        self.progress.update(_key(trial, report["digest"]), state)

    def _fail(self, trial: Trial, reason: str) -> None:
        for requested_spec in trial.config["group"]["trials"]:
            spec = TrialSpec.model_validate(requested_spec)
            report = {
                "digest": spec.digest(self.fingerprint),
                "outcome": Outcome.FAILED,
                "epoch": 0,
                "score": -math.inf,
                "seconds": self.time_limit.seconds(trial),
                "reason": reason,
            }
            self._show(trial, report)
            self._end(trial, spec, report, None)

    def _end(
        self, trial: Trial, spec: TrialSpec, report: dict[str, Any], result: TrialResult | None
    ) -> None:
        """Pass on an ended trial with its last report."""
        digest, outcome = report["digest"], Outcome(report["outcome"])
        ended = EndedTrial(
            spec,
            digest,
            trial.config["group"]["parent"],
            outcome,
            result,
            report["reason"],
            at_ms=int(time.time() * 1000),
            seconds=report["seconds"],
        )
        self.on_end(ended)
        self.progress.end(_key(trial, digest), outcome)


def _key(trial: Trial, digest: str) -> str:
    """Return the key of a trial of a group in the progress display."""
    return f"{trial.trial_id} {digest}"
