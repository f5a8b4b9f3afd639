"""Local folders of tracking stores and studies: locks, and trials that are still to be sent."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from platformdirs import user_state_path

#: Folder of the trials of a study that are still to be sent, in the folder of the study.
OUTBOX = "outbox"


def state_folder(uri: str) -> Path:
    """Return the local folder of a store.

    It is in the user's state folder, which the environment variable ``XDG_STATE_HOME`` sets.

    Parameters
    ----------
    uri
        The tracking URI without its password: a new password leaves the folder the same.
    """
    return user_state_path("mmlab") / _short_hash(uri)


def results_lock_folder(path: Path) -> Path:
    """Return the local folder with the lock of a file of finished replicates."""
    return user_state_path("mmlab") / "results" / _short_hash(str(path.resolve()))


def study_folder(uri: str, study: str) -> Path:
    """Return the local folder of a study in a store.

    A name that could be no folder, or another one, is replaced by its hash.
    """
    usable = re.fullmatch(r"\w[^/\x00-\x1f]*", study) and len(os.fsencode(study)) < 200
    name = study if usable else hashlib.sha256(study.encode()).hexdigest()[:24]
    return state_folder(uri) / name


def _short_hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]
