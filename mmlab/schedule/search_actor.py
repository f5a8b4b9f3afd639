"""The Ray actor that runs the trials of a search and logs them to the tracking store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mmlab.datasets.cells import Cells
from mmlab.nn.training import TrainingDivergedError
from mmlab.schedule.actor import Actor
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import ENDED, Outcome, StudyRun, TrialRun
from mmlab.trial.objective import SCORE
from mmlab.trial.run import OBJECTIVE, Trial, final_objective

#: Score of a trial whose training diverged; lower than the score of any panel.
DIVERGED_SCORE = -1.0


class SearchActor(Actor):
    """Runs the trials of a search, one epoch per step, and logs them to the tracking store.

    ``config`` contains a ``selector`` and its ``params``.
    """

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Start the first trial; ``shared`` also contains the ``study`` that trials belong to."""
        self.study: StudyRun[SearchSpec] = shared["study"]
        super().setup(config, **shared)

    def _start(self, config: dict[str, Any]) -> None:
        self.spec = self.study.spec.trial(config["selector"], config["params"])
        self.trial: Trial | None = None

    def step(self) -> dict[str, Any]:
        """Train one epoch; after the last epoch, evaluate and log the result."""
        if self.trial is None:
            self.trial = Trial(self.spec, self.cells)
            self.run = open_trial_run(self.study, self.trial.spec, self.trial.digest, self.cells)
            self.report: dict[str, Any] = {
                "run_id": self.run.run_id,
                "digest": self.trial.digest,
                "outcome": str(Outcome.RUNNING),
                "epoch": 0,
                SCORE: -math.inf,
                "reason": "",
                # Optuna may propose the same configuration twice; its trial is not run again.
                "ended_before": self.run.ended,
            }
            self.epochs = self._run_epochs(self.trial)
        if not self.run.ended:
            next(self.epochs, None)
        done = self.run.ended or self.report["outcome"] in ENDED
        return self.report | {"done": done}

    def _run_epochs(self, trial: Trial) -> Iterator[None]:
        """Run the trial; yield after each epoch, and log the result after the last one."""
        max_epochs = trial.spec.params.get("max_epochs")
        rungs = [] if max_epochs is None else self.study.spec.search.rungs(int(max_epochs))
        try:
            for epoch in trial.epochs():
                number = int(epoch["epoch"])
                self.report |= {"epoch": number, SCORE: epoch[OBJECTIVE]}
                scored = epoch | {SCORE: epoch[OBJECTIVE]}
                self.run.log_epoch(scored, write_now=number in rungs)
                yield
        except TrainingDivergedError as error:
            self.run.write()
            failed = {"outcome": str(Outcome.FAILED), "reason": str(error)}
            self.report |= failed | {"epoch": 0, SCORE: DIVERGED_SCORE}
            return
        result = trial.result()
        score = result.metrics[final_objective(self.study.spec.search.selector)]
        # With epochs, the last one has already logged the objective.
        extra = {} if len(result.history) else {OBJECTIVE: score}
        self.run.log_result(result, extra | {SCORE: score})
        complete = {"outcome": str(Outcome.COMPLETE), "epoch": len(result.history)}
        self.report |= complete | {SCORE: score}


def open_trial_run(
    study: StudyRun[SearchSpec], spec: TrialSpec, digest: str, cells: Cells
) -> TrialRun:
    """Reopen the run of a search's trial, or create it if there is none."""
    parent = (study.name, study.run_id)
    return TrialRun.open(study.store, study.experiment_id, spec, digest, cells, parent)
