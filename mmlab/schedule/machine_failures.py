"""Failures of machines, which say nothing about the trial that they hit."""

from __future__ import annotations

from ray.exceptions import RayTaskError
from ray.tune.experiment import Trial

from mmlab.tracking import STORE_ERRORS

#: Exceptions on a worker that come from its machine, or from the tracking store: a package that is
#: not installed, a full disk, too little memory.
_MACHINE_ERRORS = (ImportError, MemoryError, *STORE_ERRORS)


def is_machine_failure(trial: Trial) -> bool:
    """Return whether a trial ended because of its worker, node or machine.

    An exception of the trial itself always comes as a ``RayTaskError``. All other errors are of
    machines, such as that of a dead worker, or one of which Tune kept only the text.
    """
    error = trial.get_pickled_error()
    return not isinstance(error, RayTaskError) or isinstance(error.cause, _MACHINE_ERRORS)
