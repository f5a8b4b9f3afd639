"""The Ray actor that runs the trials of a comparison and reports them to the driver."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mmlab.errors import UserError
from mmlab.nn.training import TrainingDivergedError
from mmlab.schedule.actor import Actor
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import Outcome
from mmlab.trial.objective import knn_accuracy
from mmlab.trial.run import OBJECTIVE, Trial, run_trials


class ComparisonActor(Actor):
    """Runs a group of trials, one epoch per step; a group is trained together if possible.

    ``config["group"]`` contains the ``trials``, the title of their ``method`` and, as ``parent``,
    the id of the method's run. The actor writes nothing: the last report of a trial contains its
    result.
    """

    def _start(self, config: dict[str, Any]) -> None:
        self.specs = [TrialSpec.model_validate(trial) for trial in config["group"]["trials"]]
        self.epochs: Iterator[None] | None = None
        self.reports: dict[str, dict[str, Any]] = {}

    def step(self) -> dict[str, Any]:
        """Train one epoch; after the last epoch, evaluate the trials."""
        if self.epochs is None:
            self.epochs = self._run_epochs([Trial(spec, self.cells) for spec in self.specs])
        over = next(self.epochs, self) is self
        reports = list(self.reports.values())
        return {"trials": reports, "done": over}

    def _run_epochs(self, trials: Sequence[Trial]) -> Iterator[None]:
        """Run the trials together; yield after each epoch."""
        for trial in trials:
            self._report(trial, Outcome.RUNNING)
        try:
            for epochs in run_trials(trials):
                for trial, epoch in zip(trials, epochs, strict=True):
                    if epoch is not None:
                        number, score = int(epoch["epoch"]), epoch[OBJECTIVE]
                        self._report(trial, Outcome.RUNNING, epoch=number, score=score)
                yield
        except (TrainingDivergedError, UserError) as error:
            if len(trials) == 1:
                self._report(trials[0], Outcome.FAILED, reason=str(error))
                return
            # Running each trial alone shows which one failed, and completes the others.
            for trial in trials:
                yield from self._run_epochs([Trial(trial.spec, self.cells)])
            return
        for trial in trials:
            result = trial.result()
            self._report(
                trial,
                Outcome.COMPLETE,
                epoch=len(result.history),
                score=knn_accuracy(result),
                seconds=result.seconds,
                result=result.to_json(),
            )

    def _report(
        self,
        trial: Trial,
        outcome: Outcome,
        *,
        epoch: int = 0,
        score: float = -math.inf,
        seconds: float = 0.0,
        reason: str = "",
        result: str = "",
    ) -> None:
        self.reports[trial.digest] = {
            "digest": trial.digest,
            "outcome": str(outcome),
            "epoch": epoch,
            "score": score,
            "seconds": seconds,
            "reason": reason,
            "result": result,
        }
