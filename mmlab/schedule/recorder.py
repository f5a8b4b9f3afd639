"""What the driver does as results come in: close runs, pass rows on, tell the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune import Callback

from mmlab.config import AnyStudy
from mmlab.datasets.base import Cells
from mmlab.pipeline import resolve
from mmlab.schedule.actor import SCORE, described, open_trial
from mmlab.schedule.progress import Progress, Row
from mmlab.tracking import Outcome, StudyRun, close_trial

#: Takes the digest and the finished replicates of a trial.
OnRows = Callable[[str, list[dict[str, Any]]], None]


class Recorder(Callback):
    """Tune's view of the trials, passed on to the tracking store and to the user.

    The final status of a run is set here and nowhere else while the study runs.
    """

    def __init__(
        self,
        study: StudyRun[AnyStudy],
        cells: Cells,
        progress: Progress,
        on_rows: OnRows | None = None,
    ) -> None:
        self.study = study
        self.cells = cells
        self.progress = progress
        self.on_rows = on_rows

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its callbacks to disk, and mmlab never reads them back."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        """Show the latest epoch."""
        if result["repeated"]:
            return
        config = described(trial.config)
        self.progress.update(
            trial.trial_id,
            Row(
                digest=result["digest"][:8],
                method=config.get("method") or config["selector"],
                outcome=Outcome(result["outcome"]),
                epoch=result["epoch"],
                score=result[SCORE],
                params=config.get("params", {}),
                seconds=sum(row["seconds"] for row in result["rows"]),
            ),
        )

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Close the run: complete, failed, or stopped because others were ahead."""
        result = trial.last_result
        if result.get("repeated") or "run_id" not in result:
            return
        if self.on_rows is not None and result["rows"]:
            self.on_rows(result["digest"], result["rows"])
        outcome, reason = Outcome(result["outcome"]), result["reason"]
        if outcome == Outcome.RUNNING:
            outcome = Outcome.STOPPED
            reason = (
                f"Stopped after epoch {result['epoch']} with validation score "
                f"{result[SCORE]:.4f}: other trials were ahead at that point."
            )
        close_trial(self.study.store, result["run_id"], outcome, reason)
        self.progress.end(trial.trial_id, outcome)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Close the run of a trial that failed for good, with the error."""
        config = described(trial.config)
        spec = resolve(self.study.spec.trial_of(config), self.cells)
        digest = spec.digest(self.cells.fingerprint)
        # The trial may have failed before it had a run: then it gets one, to be seen at all.
        run = open_trial(self.study, spec, digest, self.cells, config.get("parent"))
        reason = str(trial.get_error() or "the worker process died")
        close_trial(self.study.store, run.run_id, Outcome.FAILED, reason)
        self.progress.end(trial.trial_id, Outcome.FAILED)
