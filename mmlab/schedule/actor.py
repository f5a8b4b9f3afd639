"""The Ray actor that works on the trials of a search, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from ray import tune
from threadpoolctl import threadpool_limits

from mmlab.datasets.cells import Cells
from mmlab.nn.training import TrainingDivergedError
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import ENDED, Outcome, StudyRun, TrialRun
from mmlab.trial.run import OBJECTIVE, Trial, final_objective

#: Tune's name for the score that the search maximises.
SCORE = "score"
#: Score of a trial whose training diverged: below any that a panel can have.
DIVERGED_SCORE = -1.0


class Actor(tune.Trainable):
    """What actors have in common: they are reused, and what a trial leaves is only its own.

    A subclass begins its next work in ``_start``, which replaces all that the last one left.
    """

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Begin the first work; ``shared`` is what ``tune.with_parameters`` adds.

        ``cells`` come from the object store, ``threads`` is the number of CPU threads.
        """
        self.cells: Cells = shared["cells"]
        torch.set_num_threads(shared["threads"])
        self._limits = threadpool_limits(limits=shared["threads"])
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next work."""
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        raise NotImplementedError


class SearchActor(Actor):
    """Runs a trial of a search an epoch a step, and writes it to the tracking store as it goes.

    ``config`` is a selector with its parameters.
    """

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Begin the first trial; ``study`` names where results go."""
        self.study: StudyRun[SearchSpec] = shared["study"]
        super().setup(config, **shared)

    def _start(self, config: dict[str, Any]) -> None:
        self.spec = self.study.spec.trial(config["selector"], config["params"])
        self.trial: Trial | None = None

    def step(self) -> dict[str, Any]:
        """Train one epoch, or, after the last one, evaluate and finish."""
        if self.trial is None:
            self.trial = Trial(self.spec, self.cells)
            self.run = open_trial(self.study, self.trial.spec, self.trial.digest, self.cells)
            self.report: dict[str, Any] = {
                "run_id": self.run.run_id,
                "digest": self.trial.digest,
                "outcome": str(Outcome.RUNNING),
                "epoch": 0,
                SCORE: -math.inf,
                "reason": "",
                # A configuration may be proposed twice: then nothing is left to do.
                "ended_before": self.run.ended,
            }
            self.epochs = self._work(self.trial)
        if not self.run.ended:
            next(self.epochs, None)
        done = self.run.ended or self.report["outcome"] in ENDED
        return self.report | {"done": done}

    def _work(self, trial: Trial) -> Iterator[None]:
        """Run the trial; an item an epoch, and one after it is finished."""
        max_epochs = trial.spec.params.get("max_epochs")
        rungs = [] if max_epochs is None else self.study.spec.search.rungs(int(max_epochs))
        try:
            for epoch in trial.epochs():
                number = int(epoch["epoch"])
                self.report |= {"epoch": number, SCORE: epoch[OBJECTIVE]}
                self.run.log_epoch(epoch, at_once=number in rungs)
                yield
        except TrainingDivergedError as error:
            self.run.write()
            failed = {"outcome": str(Outcome.FAILED), "reason": str(error)}
            self.report |= failed | {"epoch": 0, SCORE: DIVERGED_SCORE}
            return
        result = trial.result()
        score = result.metrics[final_objective(self.study.spec.search.selector)]
        # The last epoch has said it already, where there are epochs.
        self.run.log_result(result, {} if len(result.history) else {OBJECTIVE: score})
        complete = {"outcome": str(Outcome.COMPLETE), "epoch": len(result.history)}
        self.report |= complete | {SCORE: score}


def open_trial(study: StudyRun[SearchSpec], spec: TrialSpec, digest: str, cells: Cells) -> TrialRun:
    """Run of a search's trial: the one that exists, opened again, or a new one."""
    above = (study.name, study.run_id)
    return TrialRun.open(study.store, study.experiment_id, spec, digest, cells, above)
