"""The Ray actor that works on trials, one after the other."""

from __future__ import annotations

import math
from typing import Any

import torch
from ray import tune
from threadpoolctl import threadpool_limits

from mmlab.config import AnyStudy, StudySpec, TrialSpec
from mmlab.datasets.base import Cells
from mmlab.nn.training import TrainingDivergedError
from mmlab.pipeline import OBJECTIVE, Trial, final_objective
from mmlab.tracking import ENDED, Outcome, StudyRun, TrialRun

#: Tune's name for the score that the search maximises.
SCORE = "score"
#: The metric of a comparison that is shown as it runs.
HEADLINE = "knn/accuracy"
#: Score of a trial whose training diverged: below any that a panel can have.
DIVERGED_SCORE = -1.0


class TrialActor(tune.Trainable):
    """Runs a trial an epoch a step, and writes it to the tracking store as it goes.

    ``config`` describes the trial in its study's own terms (``trial_of``), and names its parent
    run where that is not the study. Actors are reused: what a trial leaves behind is only what
    :meth:`_start` replaces.
    """

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Begin the first trial; ``shared`` is what ``tune.with_parameters`` adds.

        ``cells`` come from the object store, ``study`` names where results go, ``threads`` is
        the number of CPU threads.
        """
        self.cells: Cells = shared["cells"]
        self.study: StudyRun[AnyStudy] = shared["study"]
        torch.set_num_threads(shared["threads"])
        self._limits = threadpool_limits(limits=shared["threads"])
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial."""
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        config = described(config)
        self.trial = Trial(self.study.spec.trial_of(config), self.cells)
        self.parent: str | None = config.get("parent")
        self.run: TrialRun | None = None
        self.rungs = self._rungs()
        self.epochs = self.trial.epochs()

    def _rungs(self) -> list[int]:
        """Epochs after which the scheduler may stop the trial."""
        study = self.study.spec
        if not isinstance(study, StudySpec):
            return []
        return study.search.rungs(int(self.trial.spec.params.get("max_epochs", 1)))

    def step(self) -> dict[str, Any]:
        """Train one epoch, or, after the last one, evaluate and finish."""
        if self.run is None:
            trial = self.trial
            self.run = open_trial(self.study, trial.spec, trial.digest, self.cells, self.parent)
            if self.run.ended:
                return self._report(Outcome.COMPLETE, 0, -math.inf, repeated=True)
        try:
            epoch = next(self.epochs, None)
        except TrainingDivergedError as error:
            self.run.write()
            return self._report(Outcome.FAILED, 0, DIVERGED_SCORE, reason=str(error))
        if epoch is not None:
            number = int(epoch["epoch"])
            self.run.log_epoch(epoch, at_once=number in self.rungs)
            return self._report(Outcome.RUNNING, number, epoch[OBJECTIVE])
        result = self.trial.result()
        if isinstance(self.study.spec, StudySpec):
            score = result.metrics[final_objective(self.study.spec.search.selector)]
            # The last epoch has said it already, where there are epochs.
            self.run.log_result(result, {} if len(result.history) else {OBJECTIVE: score})
            return self._report(Outcome.COMPLETE, len(result.history), score)
        self.run.log_result(result, draw=False)
        score = result.metrics[HEADLINE]
        rows: list[Any] = result.replicates.to_dict(orient="records")
        return self._report(Outcome.COMPLETE, len(result.history), score, rows=rows)

    def _report(
        self,
        outcome: Outcome,
        epoch: int,
        score: float,
        *,
        reason: str = "",
        repeated: bool = False,
        rows: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        assert self.run is not None
        return {
            SCORE: score,
            "epoch": epoch,
            "outcome": str(outcome),
            "reason": reason,
            "repeated": repeated,
            "rows": rows or [],
            "run_id": self.run.run_id,
            "digest": self.trial.digest,
            "done": outcome in ENDED,
        }


def described(config: dict[str, Any]) -> dict[str, Any]:
    """What a study says of a trial: the configuration, or the grid's cell that it holds."""
    cell: dict[str, Any] = config.get("cell", config)
    return cell


def open_trial(
    study: StudyRun[AnyStudy], spec: TrialSpec, digest: str, cells: Cells, parent: str | None
) -> TrialRun:
    """Run of a study's trial: the one that exists, opened again, or a new one.

    ``parent`` is the id of its parent run, if that is not the study's. A comparison computes a
    trial that failed again; a search goes on with other configurations.
    """
    final = ENDED if isinstance(study.spec, StudySpec) else frozenset({Outcome.COMPLETE})
    above = (study.name, parent or study.run_id)
    return TrialRun.open(study.store, study.experiment_id, spec, digest, cells, above, final)
