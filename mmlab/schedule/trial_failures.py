"""Why a trial ended without a result, and whether its machine is to blame."""

from __future__ import annotations

import pickle
from pathlib import Path

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
    # Tune's own accessors read a copy of the trial's folder, which is brought up to date later.
    content = _read(trial.pickled_error_file)
    error = pickle.loads(content) if content else None
    return not isinstance(error, RayTaskError) or isinstance(error.cause, _MACHINE_ERRORS)


def failure_text(trial: Trial) -> str:
    """Return the text of the errors of a trial that failed, oldest first, with tracebacks."""
    return _read(trial.error_file).decode() or "the worker process died"


def _read(path: str | None) -> bytes:
    """Return the content of a file; empty if there is none."""
    return Path(path).read_bytes() if path and Path(path).exists() else b""
