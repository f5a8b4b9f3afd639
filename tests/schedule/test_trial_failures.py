"""Why trials ended, and whether their machine is to blame."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from mmlab.schedule.trial_failures import failure_text, is_machine_failure


def raised(cause: Exception) -> RayTaskError:
    """Return what Ray makes of an exception of an actor."""
    return RayTaskError("step", f"Traceback\n{type(cause).__name__}: {cause}", cause)


def ended(folder: Path, error: Exception | None) -> SimpleNamespace:
    """Return a trial after an error, whose folder has not been copied to the storage of Tune."""
    pickled, text = folder / "error.pkl", folder / "error.txt"
    if error is not None:
        pickled.write_bytes(pickle.dumps(error))
        text.write_text(f"Failure # 1 (occurred at 2026-01-01)\n{error}\n")
    return SimpleNamespace(
        pickled_error_file=str(pickled),
        error_file=str(text),
        get_error=lambda: None,
        get_pickled_error=lambda: None,
    )


@pytest.mark.parametrize(
    ("error", "of_machine"),
    [
        (raised(ValueError("the loss is nan")), False),
        (raised(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), True),
        (raised(MemoryError("no memory")), True),
        (raised(ImportError("no module")), True),
        (ActorDiedError(), True),
        (None, True),
    ],
)
def test_errors_of_trials_and_of_machines(
    tmp_path: Path, error: Exception | None, of_machine: bool
) -> None:
    trial = ended(tmp_path, error)
    assert is_machine_failure(trial) is of_machine
    expected = "the worker process died" if error is None else str(error)
    assert expected in failure_text(trial)
