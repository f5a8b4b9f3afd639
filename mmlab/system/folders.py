"""Replacing a folder as a whole: at any time, the old or the new one is there."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmlab.system.files import leftovers, remove_leftovers, temporary_path

#: Arguments of Linux's renameat2(2): paths relative to the working directory, and to exchange them.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``folder`` if the block raises no exception.

    The temporary folder is next to ``folder``; a killed process leaves it, and the next call
    removes it. On Linux, a folder is replaced in one step. Elsewhere, and on file systems that
    cannot exchange folders, a process that is killed between the two steps leaves the old folder
    under a temporary name, and :func:`restore_folder` returns it to its place.
    """
    folder = Path(os.path.realpath(folder))
    restore_folder(folder)
    for kind in ("new", "old"):
        remove_leftovers(folder, kind)
    new = temporary_path(folder)
    new.mkdir()
    try:
        yield new
        _move_into_place(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Return a folder to its place if a killed :func:`replace_folder` left none there."""
    folder = Path(os.path.realpath(folder))
    for old in leftovers(folder, "old")[:1]:
        # It is refused if the folder is there and not empty.
        with suppress(OSError):
            old.rename(folder)


def _move_into_place(new: Path, folder: Path) -> None:
    """Rename ``new`` to ``folder``; what was there, if not empty, is at ``new`` afterwards."""
    try:
        new.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(new, folder):
            old = temporary_path(folder, "old")
            folder.rename(old)
            try:
                new.rename(folder)
            except BaseException:
                old.rename(folder)
                raise
            old.rename(new)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False if the system or file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    if renameat2(*paths, ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))
