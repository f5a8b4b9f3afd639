"""A user's ``.h5ad`` opened with care: nothing outside it is read, nothing absurd is believed.

HDF5 files can point at other files of the user's (links, external storage, virtual datasets), and
a small one can declare terabytes. Both are looked for before any value is read.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from mmlab.datasets.io.hdf5 import RefusedFileError, declared_bytes, format_bytes

#: Deflate makes nothing smaller than this: a dataset that declares more was never filled.
_LARGEST_RATIO = 1032
#: Bytes that a dataset may declare, however little the file stores of it: they harm nobody.
_HARMLESS = 2**26

_HEADS = {
    b"\x1f\x8b": "begins like a gzip file: unpack it first",
    b"PK": "begins like a zip file: unpack it first",
    b"%%MatrixMarket": "is a MatrixMarket file: read it with scanpy.read_mtx, then write_h5ad",
}


@contextmanager
def open_h5ad(path: str) -> Iterator[h5py.File]:
    """Open a file whose objects have all been looked at; no value of it has been read.

    Raises
    ------
    RefusedFileError
        It is missing, empty, truncated or no HDF5; it holds soft or external links, external
        storage or virtual datasets; it declares more than it can hold; or it is no ``.h5ad``.
    """
    if problem := _file_problem(Path(path)):
        raise RefusedFileError(path, [problem])
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise RefusedFileError(path, [_in_plain_words(error)]) from error
    with file:
        try:
            problems = _object_problems(file) or _content_problems(file)
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise RefusedFileError(path, [_in_plain_words(error)]) from error
        if problems:
            raise RefusedFileError(path, problems)
        yield file


def _file_problem(path: Path) -> str | None:
    if not path.is_file():
        return "it is not a file; an .h5ad file is needed"
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if not head:
        return "it is empty (0 bytes)"
    if not h5py.is_hdf5(path):
        looks = next((text for start, text in _HEADS.items() if head.startswith(start)), None)
        looks = looks or f"it begins with {head[:8]!r}"
        return f"it is not an HDF5 file, as every .h5ad is: {looks}"
    return None


def _in_plain_words(error: Exception) -> str:
    detail = " ".join(str(error).split())
    if cut := re.search(r"truncated file: eof = (\d+),.* stored_eof = (\d+)", detail):
        return f"it is truncated: {cut[1]} of {cut[2]} bytes are there"
    if "unable to lock file" in detail:
        return "another program has it open for writing"
    return f"it is damaged: {detail}"


def _object_problems(file: h5py.File) -> list[str]:
    """What leads out of the file, and what cannot be as large as it says; one of each kind."""
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
    """Every dataset, and what is wrong with every link that is not followed, with its path."""
    stack: list[tuple[str, h5py.Group]] = [("/", file["/"])]
    seen = {_address(file["/"])}
    while stack:
        above, group = stack.pop()
        for name in group:
            path = posixpath.join(above, name)
            link = group.get(name, getlink=True)
            if link is None:
                raise KeyError(f"{path} is listed but not there")
            if not isinstance(link, h5py.HardLink):
                target = getattr(link, "filename", link.path)
                kind = "an external" if isinstance(link, h5py.ExternalLink) else "a soft"
                yield path, (kind, f"is {kind} link to {target!r}: such links are not followed")
                continue
            item = group[name]
            if _address(item) in seen:
                continue
            seen.add(_address(item))
            if isinstance(item, h5py.Group):
                stack.append((path, item))
            elif isinstance(item, h5py.Dataset):
                yield path, item


def _address(item: Any) -> tuple[int, int]:
    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr


def _dataset_problem(dataset: h5py.Dataset, file_size: int) -> tuple[str, str] | None:
    # First of all: even the shape of a virtual dataset may be looked up in other files.
    if dataset.is_virtual:
        return "virtual", "is a virtual dataset: its values lie in other files, which are not read"
    if dataset.external:
        target = dataset.external[0][0]
        return "external", f"keeps its values outside the file, in {target!r}: that is not read"
    declared = declared_bytes(dataset)
    stored = min(dataset.id.get_storage_size(), file_size)
    if declared > max(_HARMLESS, _LARGEST_RATIO * stored):
        return "size", (
            f"declares {format_bytes(declared)}, but the file of {file_size} bytes stores {stored} "
            "bytes of it: no compression does that"
        )
    return None


def _content_problems(file: h5py.File) -> list[str]:
    missing = [name for name in ("obs", "var") if name not in file]
    if not missing:
        return []
    holds = ", ".join(sorted(file)) or "nothing"
    hint = "; it looks like a 10x file: read it with scanpy.read_10x_h5, then write_h5ad"
    return [
        f"it is HDF5 but not .h5ad: it lacks {' and '.join(missing)} and holds {holds}"
        + (hint if "matrix" in file else "")
    ]
