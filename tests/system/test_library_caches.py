"""Libraries get a cache folder where the user's cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os
from mmlab.cli import app
try:
    app([])
finally:
    print(os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("MPLCONFIGDIR"))
"""


def caches(**variables: str) -> list[str]:
    """Return the cache folders of Numba and Matplotlib during a command."""
    dropped = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    command = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(command, env=environment | variables, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()[-1].split()


def test_a_cache_folder_that_cannot_be_written_is_replaced_by_a_temporary_one() -> None:
    numba, matplotlib = caches(HOME="/proc/nothing")
    assert numba == matplotlib
    assert Path(numba).name.startswith("mmlab-caches-")
    assert not Path(numba).exists()


def test_cache_folders_that_can_be_written_or_are_set_are_kept(tmp_path: Path) -> None:
    own = {"NUMBA_CACHE_DIR": "/numba", "MPLCONFIGDIR": "/matplotlib"}
    assert caches(HOME="/proc/nothing", **own) == ["/numba", "/matplotlib"]
    assert caches(HOME=str(tmp_path)) == ["None", "None"]
