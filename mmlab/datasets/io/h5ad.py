"""Open an untrusted ``.h5ad`` file safely.

HDF5 files can refer to other files of the user (links, external storage, virtual datasets), and a
small file can declare terabytes. Both are checked before any value is read.
"""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from mmlab.datasets.io.formats import (
    describe_file,
    describe_folder,
    describe_hdf5,
    describe_missing,
)
from mmlab.datasets.io.hdf5 import InvalidFileError, declared_bytes, format_bytes

#: Largest compression ratio of deflate: a dataset that declares more was never written completely.
_MAX_RATIO = 1032
#: Bytes that a dataset may declare whatever its compression ratio; that much does no harm.
_HARMLESS_BYTES = 2**26
#: Soft links that are followed one after the other; more are a loop.
_MAX_LINKS = 16


@contextmanager
def open_h5ad(path: str) -> Iterator[h5py.File]:
    """Open a file and check all its objects; no value is read.

    Raises
    ------
    InvalidFileError
        The file is missing, empty, truncated or not HDF5; it has links to other files, external
        storage or virtual datasets; it declares more than it can contain; or it is not ``.h5ad``.
    """
    if problem := _file_problem(Path(path)):
        raise InvalidFileError(path, [problem])
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InvalidFileError(path, [_describe_error(error)]) from error
    with file:
        try:
            problems = _object_problems(file)
            if not problems and (other := describe_hdf5(file)):
                problems = [other]
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InvalidFileError(path, [_describe_error(error)]) from error
        if problems:
            raise InvalidFileError(path, problems)
        yield file


def _file_problem(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return describe_folder(path)
        if not stat.S_ISREG(mode):
            return "it is not a file; pass the path of an .h5ad file"
        with path.open("rb") as stream:
            head = stream.read(64)
    except (FileNotFoundError, NotADirectoryError):
        return describe_missing(path)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if not head:
        return "it is empty (0 bytes); copy it again"
    if not h5py.is_hdf5(path):
        return describe_file(path, head)
    return None


def _describe_error(error: Exception) -> str:
    detail = " ".join(str(error).split())
    if sizes := re.search(r"truncated file: eof = (\d+),.* stored_eof = (\d+)", detail):
        return f"it is truncated: it has {sizes[1]} of {sizes[2]} bytes; copy it again"
    if "unable to lock file" in detail:
        return "another program has it open for writing; close it there"
    return f"it is damaged: {detail}; copy it again"


def _object_problems(file: h5py.File) -> list[str]:
    """Return references to other files, links and impossible sizes; one message per kind."""
    size = Path(file.filename).stat().st_size
    found: dict[str, list[str]] = {}
    for path, item in _walk(file):
        problem = _dataset_problem(item, size) if isinstance(item, h5py.Dataset) else item
        if problem:
            kind, detail = problem
            found.setdefault(kind, []).append(f"{path} {detail}")
    return [
        first + (f" (and {len(others)} more of that kind)" if others else "")
        for first, *others in found.values()
    ]


def _walk(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Yield the path and the object of every dataset, and the path and problem of links.

    A soft link to an object of the same file is no problem: the object is visited where it is.
    Other links are not followed. A problem is a pair of its kind and its message.
    """
    stack: list[tuple[str, h5py.Group]] = [("/", file["/"])]
    seen = {_object_address(file["/"])}
    while stack:
        parent, group = stack.pop()
        for name in group:
            path = posixpath.join(parent, name)
            link = group.get(name, getlink=True)
            if link is None:
                raise KeyError(f"{path} is listed but does not exist")
            if not isinstance(link, h5py.HardLink):
                if problem := _link_problem(file, path):
                    yield path, problem
                continue
            item = group[name]
            if _object_address(item) in seen:
                continue
            seen.add(_object_address(item))
            if isinstance(item, h5py.Group):
                stack.append((path, item))
            elif isinstance(item, h5py.Dataset):
                yield path, item


def _link_problem(file: h5py.File, path: str) -> tuple[str, str] | None:
    """Return why a link cannot be used; None if it leads to an object of the same file.

    No link is opened: that of another file could be anywhere.
    """
    rest, done, followed = path.strip("/").split("/"), "/", 0
    while rest:
        name = rest.pop(0)
        parent = file[done]
        link = parent.get(name, getlink=True) if isinstance(parent, h5py.Group) else None
        done = posixpath.join(done, name)
        if link is None:
            return (
                "a soft",
                f"is a soft link to {done!r}, which does not exist; store the data there",
            )
        if isinstance(link, h5py.ExternalLink):
            return "an external", (
                f"is an external link to {link.filename!r}: such links are not followed; store "
                "the data in this file"
            )
        if isinstance(link, h5py.SoftLink):
            followed += 1
            if followed > _MAX_LINKS:
                return "a loop", "is a soft link that leads to itself; store the data there"
            # HDF5 knows the folder ".", but not "..".
            target = posixpath.join(posixpath.dirname(done), link.path).split("/")
            rest = [*(part for part in target if part not in ("", ".")), *rest]
            done = "/"
    return None


def _object_address(item: Any) -> tuple[int, int]:
    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr


def _dataset_problem(dataset: h5py.Dataset, file_size: int) -> tuple[str, str] | None:
    # This check comes first: HDF5 may open other files even for the shape of a virtual dataset.
    if dataset.is_virtual:
        return "virtual", (
            "is a virtual dataset: its values are in other files, which are not read; store them "
            "in this file"
        )
    if dataset.external:
        target = dataset.external[0][0]
        return "external", (
            f"has its values outside the file, in {target!r}, which is not read; store them in "
            "this file"
        )
    declared = declared_bytes(dataset)
    stored = min(dataset.id.get_storage_size(), file_size)
    if declared > max(_HARMLESS_BYTES, _MAX_RATIO * stored):
        return "size", (
            f"declares {format_bytes(declared)}, but the file of {file_size} bytes stores {stored} "
            "bytes of it: no compression reaches that ratio; copy the file again"
        )
    return None
