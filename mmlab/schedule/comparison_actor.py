"""The Ray actor that works on a comparison's trials, and what the driver does with the results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ray.tune import Callback

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.nn.training import TrainingDivergedError
from mmlab.schedule.actor import Actor
from mmlab.schedule.progress import Progress, TrialProgress
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import EndedTrial, Outcome
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.result import TrialResult
from mmlab.trial.run import OBJECTIVE, Trial, run_trials


def headline(result: TrialResult) -> float:
    """What is shown of a trial as a comparison runs: kNN accuracy, in a search on validation."""
    prefix = "validation/" if result.spec.protocol == "search" else ""
    return result.metrics[f"{prefix}knn/accuracy"]


#: Takes a trial that has ended, before anybody is told of it.
OnEnd = Callable[[EndedTrial], None]


class ComparisonActor(Actor):
    """Runs one trial, or several that are trained as one, an epoch a step.

    ``config["part"]`` holds the ``trials``, the title of their ``method`` and the id of its run,
    ``parent``. The actor writes nothing: a trial's last report holds its result.
    """

    def _start(self, config: dict[str, Any]) -> None:
        self.specs = [TrialSpec.model_validate(trial) for trial in config["part"]["trials"]]
        self.epochs: Iterator[None] | None = None
        self.reports: dict[str, dict[str, Any]] = {}

    def step(self) -> dict[str, Any]:
        """Train one epoch, or, after the last one, evaluate and finish."""
        if self.epochs is None:
            self.epochs = self._work([Trial(spec, self.cells) for spec in self.specs])
        over = next(self.epochs, self) is self
        reports = list(self.reports.values())
        return {"trials": reports, "done": over}

    def _work(self, trials: Sequence[Trial]) -> Iterator[None]:
        """Work on trials as one; an item an epoch."""
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
            # One of them it was: each by itself shows which, and spares the others.
            for trial in trials:
                yield from self._work([Trial(trial.spec, self.cells)])
            return
        for trial in trials:
            result = trial.result()
            self._report(
                trial,
                Outcome.COMPLETE,
                epoch=len(result.history),
                score=headline(result),
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


class ComparisonRecorder(Callback):
    """Tune's view of the trials: what has ended is kept at once, and the user is told."""

    def __init__(self, cells: Cells, progress: Progress, on_end: OnEnd) -> None:
        self.cells = cells
        self.progress = progress
        self.on_end = on_end

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its callbacks to disk, and mmlab never reads them back."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        """Keep what has ended, and show the rest."""
        part = trial.config["part"]
        for report, described in zip(result["trials"], part["trials"], strict=True):
            outcome = Outcome(report["outcome"])
            key = f"{trial.trial_id} {report['digest']}"
            row = TrialProgress(
                digest=report["digest"][:8],
                method=part["method"],
                outcome=outcome,
                epoch=report["epoch"],
                score=report["score"],
                params={},
                # They ran side by side.
                seconds=report["seconds"] / len(part["trials"]),
            )
            self.progress.update(key, row)
            if not result["done"]:
                continue
            # Tune keeps the last report of every trial; the result need not be among it.
            text = report.pop("result")
            found = TrialResult.from_json(text) if text else None
            spec = TrialSpec.model_validate(described) if found is None else found.spec
            self._keep(spec, report["digest"], part["parent"], found, report["reason"])
            self.progress.end(key, outcome)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Keep that trials failed for good, with the error."""
        part = trial.config["part"]
        reason = str(trial.get_error() or "the worker process died")
        for described in part["trials"]:
            spec = resolve_spec(TrialSpec.model_validate(described), self.cells)
            digest = spec.digest(self.cells.fingerprint)
            self._keep(spec, digest, part["parent"], None, reason)
            self.progress.end(f"{trial.trial_id} {digest}", Outcome.FAILED)

    def _keep(
        self, spec: TrialSpec, digest: str, parent: str, result: TrialResult | None, reason: str
    ) -> None:
        at_ms = int(time.time() * 1000)
        self.on_end(EndedTrial(spec, digest, parent, result, reason, at_ms))
