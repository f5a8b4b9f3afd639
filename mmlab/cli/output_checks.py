"""Checks of output paths before any work: that they can be written, on a disk that is not full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmlab.errors import UserError
from mmlab.system.files import existing_folder, temporary_path

#: Bytes that are written to try a disk.
_TRIAL_BYTES = 65_536


def check_output_file(option: str, path: Path | None, *, read: bool = False) -> None:
    """Check that a file can be written; None is no file.

    Parameters
    ----------
    read
        Whether the file is read, too: it cannot be a device or a pipe then.

    Raises
    ------
    UserError
        The path is a folder or a link to nothing, its folder does not exist or cannot be written,
        or the disk is full.
    """
    if path is None:
        return
    with _refusals(option, path):
        if path.is_dir():
            raise UserError(f"{option} {path} is a folder. Pass the name of a file in it.")
        if read and path.exists() and not path.is_file():
            raise UserError(f"{option} {path} is not a regular file. Pass another one.")
        _check_parent(option, path)
        if path.exists() and not os.access(path, os.W_OK):
            raise UserError(f"{option} {path} cannot be written. Pass another file.")
        if path.is_file() or not path.exists():
            _try_folder(path, path.absolute().parent)


def check_output_folder(option: str, path: Path | None, *, parents: bool = False) -> None:
    """Check that files can be written to a folder; None is no folder.

    Parameters
    ----------
    parents
        Whether the folders above it are created, too.

    Raises
    ------
    UserError
        The path is a file, a link to nothing or the root of the file system, the folder above it
        does not exist or cannot be written, or the disk is full.
    """
    if path is None:
        return
    with _refusals(option, path):
        if path.exists() and not path.is_dir():
            raise UserError(f"{option} {path} is a file. Pass a folder.")
        if not Path(os.path.realpath(path)).name:
            raise UserError(f"{option} {path} is the root of the file system. Pass a folder in it.")
        if not parents:
            _check_parent(option, path)
        _try_folder(path, existing_folder(path.absolute()))


def _check_parent(option: str, path: Path) -> None:
    if not path.absolute().parent.is_dir():
        raise UserError(f"{option} {path}: the folder {path.parent} does not exist.")


def _try_folder(path: Path, folder: Path) -> None:
    """Write a file to the folder, with the temporary name under which mmlab writes the path."""
    name = path.name if path.absolute().parent == folder else "mmlab"
    temporary = temporary_path(folder / name)
    try:
        with temporary.open("wb") as trial:
            trial.write(b"\0" * _TRIAL_BYTES)
            trial.flush()
            os.fsync(trial.fileno())
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _refusals(option: str, path: Path) -> Iterator[None]:
    """Turn what the system refuses within the block into a ``UserError``; refuse broken links."""
    try:
        if path.is_symlink() and not path.exists():
            raise UserError(
                f"{option} {path} is a symbolic link to {path.readlink()}, which does not exist. "
                "Create it, remove the link, or pass another path."
            )
        yield
    except OSError as error:
        raise UserError(
            f"{option} {path} cannot be written: {error.strerror}. Pass a path on another disk, or "
            "a shorter name."
        ) from error
