"""A folder for the caches of libraries where the user's cache folder cannot be written."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from contextlib import suppress

from platformdirs import user_cache_path

from mmlab.errors import UserError
from mmlab.system.files import require_folder

#: Environment variables with the cache folders of Numba and Matplotlib.
_VARIABLES = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR")


def provide_library_caches() -> None:
    """Set a temporary folder for the caches of libraries if the user's cannot be written.

    Without one, as for a container's user with the home folder ``/``, scanpy cannot be imported:
    Numba refuses to compile its functions. The folder is inherited by workers and removed at the
    end of this process.
    """
    missing = [name for name in _VARIABLES if name not in os.environ]
    if not missing:
        return
    with suppress(UserError):
        require_folder(user_cache_path(), "XDG_CACHE_HOME")
        return
    folder = tempfile.mkdtemp(prefix="mmlab-caches-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ |= dict.fromkeys(missing, folder)
