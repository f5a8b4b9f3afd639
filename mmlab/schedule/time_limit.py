"""The limit to the time that a trial may take, after which its worker is killed."""

from __future__ import annotations

import math
import time
from typing import Any

import ray
from ray.tune.experiment import Trial

from mmlab.schedule.driver_callback import DriverCallback

#: How many times a trial may take too long before it has failed.
_ATTEMPTS = 2


class TimeLimit(DriverCallback):
    """Tune callback that kills the worker of a trial that takes too long.

    A worker that hangs, in a library or on a disk that does not respond, would keep its CPUs and
    GPUs for ever. Tune starts the trial once more, as after any death of a worker.

    Parameters
    ----------
    minutes
        Minutes that a trial may have a worker; None sets no limit. A
        configuration with a group of trials has it once for each of them.
    """

    def __init__(self, minutes: float | None) -> None:
        self._minutes = minutes
        #: The worker of each trial, and since when it has it.
        self._workers: dict[str, tuple[Any, float]] = {}
        #: After how many seconds each worker of a trial was killed.
        self._killed: dict[str, list[float]] = {}

    def reason(self, trial: Trial) -> str:
        """Return why a trial has failed; empty unless two of its workers were killed."""
        if len(self._killed.get(trial.trial_id, [])) < _ATTEMPTS:
            return ""
        return f"The trial took longer than --minutes-per-trial {self._minutes:g}, in two attempts."

    def seconds(self, trial: Trial) -> float:
        """Return after how many seconds the last worker of a trial was killed."""
        return self._killed[trial.trial_id][-1]

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Kill the workers of trials that take too long."""
        if self._minutes is None:
            return
        now = time.monotonic()
        for trial in trials:
            actor = trial.temporary_state.ray_actor
            worker, since = self._workers.get(trial.trial_id, (None, now))
            if actor is not worker:
                # Tune gives a trial the worker of another one before that has got ready for it.
                self._workers[trial.trial_id] = (actor, now)
            elif actor is not None and now - since > 60 * self._minutes * _n_trials(trial):
                self._workers[trial.trial_id] = (actor, math.inf)
                self._killed.setdefault(trial.trial_id, []).append(now - since)
                ray.kill(actor)


def _n_trials(trial: Trial) -> int:
    """Return how many trials are trained together."""
    return len(trial.config["group"]["trials"]) if "group" in trial.config else 1
