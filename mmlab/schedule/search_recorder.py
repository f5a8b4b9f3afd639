"""The Tune callback of a search: records its trials and updates the progress display."""

from __future__ import annotations

import time
from typing import Any

from ray.tune.experiment import Trial

from mmlab.schedule.actor import FAILED_SCORE
from mmlab.schedule.progress import Progress, TrialProgress
from mmlab.schedule.ray_tune_run import Recorder
from mmlab.schedule.search_trials import SearchTrials
from mmlab.tracking import EndedTrial, Outbox
from mmlab.trial.objective import SCORE
from mmlab.trial.outcome import Outcome
from mmlab.trial.result import TrialResult


class SearchRecorder(Recorder):
    """Passes running and ended trials to the outbox, and all reports to the progress display.

    It runs in the driver. The reports come from :class:`mmlab.schedule.actor.SearchActor`.
    """

    def __init__(self, trials: SearchTrials, outbox: Outbox, progress: Progress) -> None:
        super().__init__()
        self.trials = trials
        self.outbox = outbox
        self.progress = progress
        self._epochs: dict[str, list[dict[str, float]]] = {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        """Keep and show the latest epoch of a trial; record the trial once it has its result."""
        (report,) = result["trials"]
        self._show(trial, report, result[SCORE])
        if report["metrics"]:
            self._keep_epoch(trial, report)
        # Tune keeps the last report of every trial in memory; drop the large result from it.
        text = report.pop("result")
        if report["outcome"] in (Outcome.COMPLETE, Outcome.FAILED):
            self._record(trial, report, TrialResult.from_json(text) if text else None)

    def _show(self, trial: Trial, report: dict[str, Any], score: float) -> None:
        state = TrialProgress(
            digest=report["digest"][:8],
            method=trial.config["selector"],
            outcome=Outcome(report["outcome"]),
            epoch=report["epoch"],
            score=score,
            params=trial.config["params"],
            seconds=report["seconds"],
        )
        self.progress.update(trial.trial_id, state)

    def _keep_epoch(self, trial: Trial, report: dict[str, Any]) -> None:
        metrics: dict[str, float] = report["metrics"]
        epochs = self._epochs.setdefault(trial.trial_id, [])
        # A trial whose worker died starts again from its first epoch.
        while epochs and epochs[-1]["epoch"] >= metrics["epoch"]:
            epochs.pop()
        epochs.append(metrics)
        spec, digest = self.trials.identify(trial.config["selector"], trial.config["params"])
        self.trials.start(spec, digest)
        self.outbox.report(spec, digest, self.trials.study.run_id, metrics, report["seconds"])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Record a trial that was stopped early; the others are recorded with their result."""
        super().on_trial_complete(iteration, trials, trial)
        (report,) = trial.last_result["trials"]
        if report["outcome"] == Outcome.RUNNING:
            reason = (
                f"Stopped early after epoch {report['epoch']}: the validation score of "
                f"{report['score']:.4f} was not among the best at that epoch."
            )
            self._record(trial, report | {"outcome": Outcome.STOPPED, "reason": reason}, None)

    def _fail(self, trial: Trial, reason: str) -> None:
        _, digest = self.trials.identify(trial.config["selector"], trial.config["params"])
        report = {
            "digest": digest,
            "outcome": Outcome.FAILED,
            "epoch": 0,
            "seconds": self.time_limit.seconds(trial),
            "reason": reason,
        }
        self._show(trial, report, FAILED_SCORE)
        self._record(trial, report, None)

    def _record(self, trial: Trial, report: dict[str, Any], result: TrialResult | None) -> None:
        """Record an ended trial with its last report."""
        outcome = Outcome(report["outcome"])
        spec, digest = self.trials.identify(trial.config["selector"], trial.config["params"])
        epochs = self._epochs.pop(trial.trial_id, [])
        unfinished = epochs if result is None else []
        at_ms, parent = int(time.time() * 1000), self.trials.study.run_id
        ended = EndedTrial(
            spec,
            digest,
            parent,
            outcome,
            result,
            report["reason"],
            at_ms,
            unfinished,
            report["seconds"],
        )
        self.trials.end(ended)
        self.outbox.put(ended)
        self.progress.end(trial.trial_id, outcome)
