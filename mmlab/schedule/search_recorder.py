"""The Tune callback of a search: closes the runs of trials and updates the progress display."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial

from mmlab.datasets.cells import Cells
from mmlab.schedule.progress import Progress, TrialProgress
from mmlab.schedule.ray_tune_run import Recorder
from mmlab.schedule.search_actor import open_trial_run
from mmlab.schedule.trial_failures import failure_text
from mmlab.spec.search import SearchSpec
from mmlab.tracking import Outcome, StudyRun, close_trial
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.objective import SCORE


class SearchRecorder(Recorder):
    """Closes the run of each ended trial and passes all reports to the progress display.

    It runs in the driver. While the study runs, the final status of a trial's run is set only
    here.
    """

    def __init__(self, study: StudyRun[SearchSpec], cells: Cells, progress: Progress) -> None:
        super().__init__()
        self.study = study
        self.cells = cells
        self.progress = progress

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        """Show the latest epoch of a trial."""
        if result["ended_before"]:
            return
        state = TrialProgress(
            digest=result["digest"][:8],
            method=trial.config["selector"],
            outcome=Outcome(result["outcome"]),
            epoch=result["epoch"],
            score=result[SCORE],
            params=trial.config["params"],
        )
        self.progress.update(trial.trial_id, state)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Close the run of a trial as complete, failed, or stopped early."""
        super().on_trial_complete(iteration, trials, trial)
        last = trial.last_result
        if last["ended_before"]:
            return
        outcome, reason = Outcome(last["outcome"]), last["reason"]
        if outcome == Outcome.RUNNING:
            outcome = Outcome.STOPPED
            reason = (
                f"Stopped early after epoch {last['epoch']}: the validation score of "
                f"{last[SCORE]:.4f} was not among the best at that epoch."
            )
        close_trial(self.study.store, last["run_id"], outcome, reason)
        self.progress.end(trial.trial_id, outcome)

    def _record_failure(self, trial: Trial) -> None:
        """Close the run of a trial as failed, with the error, after the last retry."""
        reason = failure_text(trial)
        unresolved = self.study.spec.trial(trial.config["selector"], trial.config["params"])
        spec = resolve_spec(unresolved, self.cells)
        digest = spec.digest(self.cells.fingerprint)
        # A trial that failed before its run was created gets one, so that the failure is recorded.
        run = open_trial_run(self.study, spec, digest, self.cells)
        close_trial(self.study.store, run.run_id, Outcome.FAILED, reason)
        self.progress.end(trial.trial_id, Outcome.FAILED)
