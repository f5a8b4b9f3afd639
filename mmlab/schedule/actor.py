"""The Ray actor that works on trials, one after the other or several as one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ray import tune
from threadpoolctl import threadpool_limits

from mmlab.config import AnyStudy, StudySpec, TrialSpec
from mmlab.datasets.base import Cells
from mmlab.nn.training import TrainingDivergedError
from mmlab.pipeline import OBJECTIVE, Trial, final_objective, run_trials
from mmlab.tracking import ENDED, Outcome, StudyRun, TrialRun

#: Tune's name for the score that the search maximises.
SCORE = "score"
#: The metric of a comparison that is shown as it runs.
HEADLINE = "knn/accuracy"
#: Score of a trial whose training diverged: below any that a panel can have.
DIVERGED_SCORE = -1.0


@dataclass
class _Member:
    """A trial at work, its run, and how it stands."""

    trial: Trial
    run: TrialRun
    outcome: Outcome = Outcome.RUNNING
    epoch: int = 0
    score: float = -math.inf
    reason: str = ""
    rows: list[Any] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        return {
            "run_id": self.run.run_id,
            "digest": self.trial.digest,
            "outcome": str(self.outcome),
            "epoch": self.epoch,
            "score": self.score,
            "reason": self.reason,
            "rows": self.rows,
        }


class TrialActor(tune.Trainable):
    """Runs trials an epoch a step, and writes them to the tracking store as it goes.

    ``config`` describes them in their study's own terms (``trials_of``), and names their parent
    run where that is not the study: one trial, or several that are trained as one. Actors are
    reused: what a trial leaves behind is only what :meth:`_start` replaces.
    """

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Begin the first trials; ``shared`` is what ``tune.with_parameters`` adds.

        ``cells`` come from the object store, ``study`` names where results go, ``threads`` is
        the number of CPU threads.
        """
        self.cells: Cells = shared["cells"]
        self.study: StudyRun[AnyStudy] = shared["study"]
        torch.set_num_threads(shared["threads"])
        self._limits = threadpool_limits(limits=shared["threads"])
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trials."""
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        config = described(config)
        self.specs = self.study.spec.trials_of(config)
        self.parent: str | None = config.get("parent")
        self.members: list[_Member] | None = None

    def step(self) -> dict[str, Any]:
        """Train one epoch, or, after the last one, evaluate and finish."""
        if self.members is None:
            opened = [self._open(spec) for spec in self.specs]
            self.members = [member for member in opened if not member.run.ended]
            if not self.members:
                return {SCORE: -math.inf, "epoch": 0, "trials": [], "done": True}
            self.epochs = self._run(self.members)
        next(self.epochs, None)
        return {
            SCORE: float(np.mean([member.score for member in self.members])),
            "epoch": max(member.epoch for member in self.members),
            "trials": [member.report() for member in self.members],
            "done": all(member.outcome in ENDED for member in self.members),
        }

    def _open(self, spec: TrialSpec) -> _Member:
        trial = Trial(spec, self.cells)
        run = open_trial(self.study, trial.spec, trial.digest, self.cells, self.parent)
        return _Member(trial, run)

    def _run(self, members: list[_Member]) -> Iterator[None]:
        """Work on trials as one; an item an epoch, and one after each is finished."""
        try:
            for epochs in run_trials([member.trial for member in members]):
                for member, epoch in zip(members, epochs, strict=True):
                    if epoch is not None:
                        self._take_up(member, epoch)
                yield
        except TrainingDivergedError as error:
            if len(members) == 1:
                self._fail(members[0], str(error))
                return
            # One of them it was: each by itself shows which, and spares the others.
            for member in members:
                member.trial = Trial(member.trial.spec, self.cells)
                yield from self._run([member])
            return
        for member in members:
            self._finish(member)

    def _take_up(self, member: _Member, epoch: dict[str, float]) -> None:
        member.epoch, member.score = int(epoch["epoch"]), epoch[OBJECTIVE]
        study, may_be_stopped = self.study.spec, False
        if isinstance(study, StudySpec):
            max_epochs = int(member.trial.spec.params["max_epochs"])
            may_be_stopped = member.epoch in study.search.rungs(max_epochs)
        member.run.log_epoch(epoch, at_once=may_be_stopped)

    def _fail(self, member: _Member, reason: str) -> None:
        member.run.write()
        member.outcome, member.reason = Outcome.FAILED, reason
        member.epoch, member.score = 0, DIVERGED_SCORE

    def _finish(self, member: _Member) -> None:
        result = member.trial.result()
        if isinstance(self.study.spec, StudySpec):
            member.score = result.metrics[final_objective(self.study.spec.search.selector)]
            # The last epoch has said it already, where there are epochs.
            member.run.log_result(result, {} if len(result.history) else {OBJECTIVE: member.score})
        else:
            member.run.log_result(result, draw=False)
            member.score = result.metrics[HEADLINE]
            member.rows = result.replicates.to_dict(orient="records")
        member.outcome, member.epoch = Outcome.COMPLETE, len(result.history)


def described(config: dict[str, Any]) -> dict[str, Any]:
    """What a study says of its trials: the configuration, or the part of the grid that it holds."""
    part: dict[str, Any] = config.get("part", config)
    return part


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
