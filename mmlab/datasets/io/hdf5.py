"""Parts of an open HDF5 file, read with every error explained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from mmlab.errors import UserError

#: Names that are read at once. All of them may be the same long text, stored once.
_NAMES_AT_ONCE = 256


#: Characters that names may have on average.
_LONGEST_NAMES = 1000


class RefusedFileError(UserError):
    """A file that cannot be read as ``.h5ad``, with everything that is wrong with it.

    Attributes
    ----------
    problems
        A sentence each.
    """

    def __init__(self, path: str, problems: list[str]) -> None:
        super().__init__(f"{path}: " + "; ".join(problems) + ".")
        self.problems = problems


@contextmanager
def explain_hdf5_errors(element: Any) -> Iterator[None]:
    """Whatever h5py raises while a part of a file is read becomes a :class:`RefusedFileError`."""
    try:
        yield
    except UserError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        detail = _missing_filter(element) or " ".join(str(error).split())
        raise RefusedFileError(
            element.file.filename, [f"{element.name} cannot be read: {detail}"]
        ) from error


def _missing_filter(element: Any) -> str | None:
    """The compression that this machine lacks, if that is why a dataset cannot be read."""
    if not isinstance(element, h5py.Dataset):
        return None
    created = element.id.get_create_plist()
    for number in range(created.get_nfilters()):
        code, *_, name = created.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            label = name.decode(errors="replace") or "unknown"
            return f"its compression ({label}, HDF5 filter {code}) is not installed; gzip works"
    return None


def read_part(part: Any, start: int, stop: int) -> np.ndarray[Any, Any]:
    """Lines ``start`` to ``stop`` of an array, or of a dataset of a file."""
    if not isinstance(part, h5py.Dataset):
        return np.asarray(part[start:stop])
    with explain_hdf5_errors(part):
        return np.asarray(part[start:stop])


def read_attribute(element: h5py.Group | h5py.Dataset, name: str) -> str:
    """A text that is attached to an element of a file; empty if there is none."""
    with explain_hdf5_errors(element):
        # In a damaged file it may be of another type, and reading that could end the process.
        found = element.attrs.get_id(name) if name in element.attrs else None
        if found is None or found.shape != () or h5py.check_string_dtype(found.dtype) is None:
            return ""
        value = element.attrs[name]
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def read_values(dataset: h5py.Dataset) -> np.ndarray[Any, Any]:
    """A column of numbers or texts, shape (n,).

    It is not left to anndata, which trusts the types in the file and the length of its texts: a
    wrong type can end the process, and a few bytes can stand for gigabytes of texts.

    Raises
    ------
    RefusedFileError
        It is none, or its texts have more than 1000 characters on average.
    """
    where, name = dataset.file.filename, dataset.name
    with explain_hdf5_errors(dataset):
        is_text = h5py.check_string_dtype(dataset.dtype) is not None
        if dataset.ndim != 1 or not (is_text or dataset.dtype.kind in "biuf"):
            raise RefusedFileError(where, [f"{name} is no column of numbers or texts"])
        if not is_text:
            return np.asarray(dataset[:])
        texts: list[str] = []
        length = 0
        for start in range(0, len(dataset), _NAMES_AT_ONCE):
            part = dataset.asstr()[start : start + _NAMES_AT_ONCE]
            texts += list(part)
            length += sum(map(len, part))
            if length > _LONGEST_NAMES * len(texts):
                mean = length // len(texts)
                problem = f"{name} holds texts of {mean} characters, which are no names"
                raise RefusedFileError(where, [problem])
        return np.array(texts, dtype=object)


def declared_bytes(dataset: h5py.Dataset) -> int:
    """Memory that all of a dataset takes as it is, or a single chunk of it if that is more."""
    shape, chunks = dataset.shape, dataset.chunks
    values = 0 if shape is None else math.prod(shape)
    return int(max(values, math.prod(chunks) if chunks else 0) * dataset.id.get_type().get_size())


def format_bytes(size: float) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
