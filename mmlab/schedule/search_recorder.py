"""What the driver of a search does as results come in: close runs, tell the user."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from mmlab.datasets.cells import Cells
from mmlab.schedule.actor import SCORE, open_trial
from mmlab.schedule.progress import Progress, TrialProgress
from mmlab.spec.search import SearchSpec
from mmlab.tracking import Outcome, StudyRun, close_trial
from mmlab.trial.defaults import resolve_spec


class SearchRecorder(Callback):
    """Tune's view of the trials, passed on to the tracking store and to the user.

    The final status of a run is set here and nowhere else while the study runs.
    """

    def __init__(self, study: StudyRun[SearchSpec], cells: Cells, progress: Progress) -> None:
        self.study = study
        self.cells = cells
        self.progress = progress

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its callbacks to disk, and mmlab never reads them back."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        """Show the latest epoch."""
        if result["ended_before"]:
            return
        row = TrialProgress(
            digest=result["digest"][:8],
            method=trial.config["selector"],
            outcome=Outcome(result["outcome"]),
            epoch=result["epoch"],
            score=result[SCORE],
            params=trial.config["params"],
        )
        self.progress.update(trial.trial_id, row)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Close the run: complete, failed, or stopped because others were ahead."""
        last = trial.last_result
        if last["ended_before"]:
            return
        outcome, reason = Outcome(last["outcome"]), last["reason"]
        if outcome == Outcome.RUNNING:
            outcome = Outcome.STOPPED
            reason = (
                f"Stopped after epoch {last['epoch']} with validation score "
                f"{last[SCORE]:.4f}: other trials were ahead at that point."
            )
        close_trial(self.study.store, last["run_id"], outcome, reason)
        self.progress.end(trial.trial_id, outcome)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Close the run of a trial that failed for good, with the error."""
        reason = str(trial.get_error() or "the worker process died")
        described = self.study.spec.trial(trial.config["selector"], trial.config["params"])
        spec = resolve_spec(described, self.cells)
        digest = spec.digest(self.cells.fingerprint)
        # It may have failed before it had a run: then it gets one, to be seen at all.
        run = open_trial(self.study, spec, digest, self.cells)
        close_trial(self.study.store, run.run_id, Outcome.FAILED, reason)
        self.progress.end(trial.trial_id, Outcome.FAILED)
