"""The Tune callback of a comparison: records ended trials and updates the progress display."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

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
    """

    def __init__(self, progress: Progress, on_end: OnEnd) -> None:
        super().__init__()
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
            self.on_end(
                EndedTrial(
                    spec,
                    report["digest"],
                    group["parent"],
                    outcome,
                    trial_result,
                    report["reason"],
                    at_ms=int(time.time() * 1000),
                    seconds=report["seconds"],
                )
            )
            self.progress.end(key, outcome)
