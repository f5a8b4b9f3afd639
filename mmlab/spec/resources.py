"""Where trials run, and what each of them gets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmlab.errors import UserError


@dataclass(frozen=True)
class Resources:
    """Where trials run and the resources of each trial.

    Attributes
    ----------
    address
        Address of a Ray cluster; None starts Ray on this machine.
    cpus_per_trial
        CPUs, and CPU threads, of a trial.
    gpus_per_trial
        GPUs of a trial; a fraction lets several trials share a GPU.
    max_concurrent
        Maximum number of trials that run at the same time; None runs as many as fit.
    minutes_per_trial
        Minutes after which a trial is ended; None sets no limit. Trials that are trained together
        have it as often as they are many.
    """

    address: str | None = None
    cpus_per_trial: int = 1
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    minutes_per_trial: float | None = None

    def __post_init__(self) -> None:
        if self.cpus_per_trial < 1:
            raise UserError(f"--cpus-per-trial is {self.cpus_per_trial}, but must be at least 1.")
        if self.gpus_per_trial < 0:
            raise UserError(f"--gpus-per-trial is {self.gpus_per_trial}, but must not be negative.")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise UserError(f"--max-concurrent is {self.max_concurrent}, but must be at least 1.")
        minutes = self.minutes_per_trial
        if minutes is not None and not 0 < minutes < math.inf:
            raise UserError(f"--minutes-per-trial is {minutes:g}, but must be positive.")
