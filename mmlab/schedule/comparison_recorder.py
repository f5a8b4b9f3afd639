"""The Tune callback of a comparison: records ended trials and updates the progress display."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial

from mmlab.datasets.cells import Cells
from mmlab.schedule.progress import Progress, TrialProgress
from mmlab.schedule.ray_tune_run import Recorder
from mmlab.schedule.trial_failures import failure_text
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import EndedTrial, Outcome
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.result import TrialResult

#: Records a trial that has ended; called before the progress display counts the trial.
OnEnd = Callable[[EndedTrial], None]


class ComparisonRecorder(Recorder):
    """Passes each ended trial to ``on_end`` and all reports to the progress display.

    It runs in the driver. The reports come from
    :class:`mmlab.schedule.actor.ComparisonActor`.
    """

    def __init__(self, cells: Cells, progress: Progress, on_end: OnEnd) -> None:
        super().__init__()
        self.cells = cells
        self.progress = progress
        self.on_end = on_end

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        """Show the latest reports of a group; record its trials once the group is done."""
        group = trial.config["group"]
        for report, requested_spec in zip(result["trials"], group["trials"], strict=True):
            outcome = Outcome(report["outcome"])
            key = f"{trial.trial_id} {report['digest']}"
            state = TrialProgress(
                digest=report["digest"][:8],
                method=group["method"],
                outcome=outcome,
                epoch=report["epoch"],
                score=report["score"],
                params={},
                # The trials of a group ran at the same time.
                seconds=report["seconds"] / len(group["trials"]),
            )
            self.progress.update(key, state)
            if not result["done"]:
                continue
            # Tune keeps the last report of every trial in memory; drop the large result from it.
            text = report.pop("result")
            trial_result = TrialResult.from_json(text) if text else None
            if trial_result is None:
                spec = TrialSpec.model_validate(requested_spec)
            else:
                spec = trial_result.spec
            self._record(spec, report["digest"], group["parent"], trial_result, report["reason"])
            self.progress.end(key, outcome)

    def _record_failure(self, trial: Trial) -> None:
        """Record all trials of a group as failed, with the error, after the last retry."""
        group = trial.config["group"]
        reason = failure_text(trial)
        for requested_spec in group["trials"]:
            spec = resolve_spec(TrialSpec.model_validate(requested_spec), self.cells)
            digest = spec.digest(self.cells.fingerprint)
            self._record(spec, digest, group["parent"], None, reason)
            self.progress.end(f"{trial.trial_id} {digest}", Outcome.FAILED)

    def _record(
        self, spec: TrialSpec, digest: str, parent: str, result: TrialResult | None, reason: str
    ) -> None:
        outcome = Outcome.FAILED if result is None else Outcome.COMPLETE
        at_ms = int(time.time() * 1000)
        self.on_end(EndedTrial(spec, digest, parent, outcome, result, reason, at_ms))
