"""What the driver does as results come in: close runs, pass rows on, tell the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune import Callback

from mmlab.config import AnyStudy
from mmlab.datasets.base import Cells
from mmlab.pipeline import resolve
from mmlab.schedule.actor import described, open_trial
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
        config = described(trial.config)
        for member in result["trials"]:
            row = Row(
                digest=member["digest"][:8],
                method=config.get("method") or config["selector"],
                outcome=Outcome(member["outcome"]),
                epoch=member["epoch"],
                score=member["score"],
                params=config.get("params", {}),
                seconds=sum(found["seconds"] for found in member["rows"]),
            )
            self.progress.update(_key(trial, member["digest"]), row)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Close the runs: complete, failed, or stopped because others were ahead."""
        for member in trial.last_result.get("trials", []):
            if self.on_rows is not None and member["rows"]:
                self.on_rows(member["digest"], member["rows"])
            outcome, reason = Outcome(member["outcome"]), member["reason"]
            if outcome == Outcome.RUNNING:
                outcome = Outcome.STOPPED
                reason = (
                    f"Stopped after epoch {member['epoch']} with validation score "
                    f"{member['score']:.4f}: other trials were ahead at that point."
                )
            close_trial(self.study.store, member["run_id"], outcome, reason)
            self.progress.end(_key(trial, member["digest"]), outcome)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Close the runs of trials that failed for good, with the error."""
        config = described(trial.config)
        reason = str(trial.get_error() or "the worker process died")
        for described_spec in self.study.spec.trials_of(config):
            spec = resolve(described_spec, self.cells)
            digest = spec.digest(self.cells.fingerprint)
            # It may have failed before it had a run: then it gets one, to be seen at all.
            run = open_trial(self.study, spec, digest, self.cells, config.get("parent"))
            close_trial(self.study.store, run.run_id, Outcome.FAILED, reason)
            self.progress.end(_key(trial, digest), Outcome.FAILED)


def _key(trial: Any, digest: str) -> str:
    """What tells the trials of a study apart: several may be one of Tune's."""
    return f"{trial.trial_id} {digest}"
