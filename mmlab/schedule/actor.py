"""The Ray actors that run the trials of comparisons and searches, and report them to the driver."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from ray import tune
from threadpoolctl import threadpool_limits

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.schedule.shared_cells import SharedCells
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import TrialSpec
from mmlab.trial.objective import SCORE, final_objective, knn_accuracy
from mmlab.trial.outcome import Outcome
from mmlab.trial.result import TrialResult
from mmlab.trial.run import OBJECTIVE, Trial, run_trials

#: Exceptions that come from the machine and say nothing about the trial: a package that is not
#: installed, a full disk, too little memory.
MACHINE_ERRORS = (ImportError, MemoryError, OSError)
#: Score of a trial of a search that failed, as when its training diverged; lower than that of any
#: panel.
FAILED_SCORE = -1.0


class Actor(tune.Trainable):
    """Runs trials, one epoch per step; those of a configuration are trained together if possible.

    It writes nothing and contacts nobody: the last report of a trial contains its result, or why
    it failed. Whatever an actor raises, and its death, is a fault of its machine. Tune reuses an
    actor for one configuration after another.

    A subclass reads the specifications of a configuration's trials in ``_specs``, and the score of
    a complete trial in ``_score``.
    """

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Limit the CPU threads and start the first configuration.

        ``shared`` is what ``tune.with_parameters`` passes to every actor: ``cells`` (from Ray's
        object store), ``threads`` (number of CPU threads), and whatever the subclass needs.
        """
        cells: Cells | SharedCells = shared["cells"]
        self.cells = cells.open() if isinstance(cells, SharedCells) else cells
        torch.set_num_threads(shared["threads"])
        self._limits = threadpool_limits(limits=shared["threads"])
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start the next configuration."""
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        self.started_at = time.monotonic()
        self.specs = self._specs(config)
        self.epochs: Iterator[None] | None = None
        self.reports: dict[str, dict[str, Any]] = {}

    def step(self) -> dict[str, Any]:
        """Train one epoch; after the last epoch, evaluate the trials.

        Returns
        -------
        ``done``, and ``trials``: of each one digest, outcome, epoch (its number), score, seconds,
        reason of a failure, metrics of the epoch, and the result as JSON, if it is complete.
        """
        if self.epochs is None:
            self.epochs = self._run_epochs([Trial(spec, self.cells) for spec in self.specs])
        over = next(self.epochs, self) is self
        return {"trials": list(self.reports.values()), "done": over}

    def _run_epochs(self, trials: Sequence[Trial]) -> Iterator[None]:
        """Run the trials together; yield after each epoch."""
        for trial in trials:
            self._report(trial, Outcome.RUNNING)
        try:
            for epochs in run_trials(trials):
                for trial, epoch in zip(trials, epochs, strict=True):
                    if epoch is not None:
                        number, score = int(epoch["epoch"]), epoch[OBJECTIVE]
                        self._report(
                            trial, Outcome.RUNNING, epoch=number, score=score, metrics=epoch
                        )
                yield
            results = [trial.result() for trial in trials]
        except MACHINE_ERRORS:
            raise
        except Exception as error:
            if len(trials) == 1:
                expected = isinstance(error, UserError)
                reason = str(error) if expected else traceback.format_exc()
                self._report(trials[0], Outcome.FAILED, reason=reason)
                return
            # Running each trial alone shows which one failed, and completes the others.
            for trial in trials:
                yield from self._run_epochs([Trial(trial.spec, self.cells)])
            return
        for trial, result in zip(trials, results, strict=True):
            self._report(
                trial,
                Outcome.COMPLETE,
                epoch=len(result.history),
                score=self._score(result),
                seconds=result.seconds,
                result=result.to_json(),
            )

    def _report(self, trial: Trial, outcome: Outcome, **changes: Any) -> None:
        report = {
            "digest": trial.digest,
            "outcome": str(outcome),
            "epoch": 0,
            "score": -math.inf,
            "seconds": time.monotonic() - self.started_at,
            "reason": "",
            "metrics": {},
            "result": "",
        }
        self.reports[trial.digest] = report | changes

    def _specs(self, config: dict[str, Any]) -> list[TrialSpec]:
        raise NotImplementedError

    def _score(self, result: TrialResult) -> float:
        raise NotImplementedError


class ComparisonActor(Actor):
    """Runs a group of trials.

    ``config["group"]`` contains the ``trials``, the title of their ``method`` and, as ``parent``,
    the id of the method's run.
    """

    def _specs(self, config: dict[str, Any]) -> list[TrialSpec]:
        return [TrialSpec.model_validate(trial) for trial in config["group"]["trials"]]

    def _score(self, result: TrialResult) -> float:
        return knn_accuracy(result)


class SearchActor(Actor):
    """Runs one trial of a search; ``config`` contains a ``selector`` and its ``params``."""

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Start the first trial; ``shared`` also contains the ``spec`` of the search."""
        self.search: SearchSpec = shared["spec"]
        super().setup(config, **shared)

    def _specs(self, config: dict[str, Any]) -> list[TrialSpec]:
        return [self.search.trial(config["selector"], config["params"])]

    def _score(self, result: TrialResult) -> float:
        return result.metrics[final_objective(result.spec.selector)]

    def step(self) -> dict[str, Any]:
        """Train one epoch; the report also has what Tune's scheduler and Optuna need."""
        report = super().step()
        (trial,) = report["trials"]
        score = FAILED_SCORE if trial["outcome"] == Outcome.FAILED else trial["score"]
        return report | {"epoch": trial["epoch"], SCORE: score}
