"""Read parts of an open HDF5 file; h5py errors become messages for the user."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from mmlab.errors import UserError, join_problems

#: Strings that are read at once. All of them may be the same long string, stored once.
_STRINGS_PER_READ = 256


#: Largest mean number of characters of the strings of a column.
_MAX_MEAN_LENGTH = 1000


class InvalidFileError(UserError):
    """A file that cannot be read as ``.h5ad``; the message lists all its problems.

    Attributes
    ----------
    problems
        One sentence per problem.
    """

    def __init__(self, path: str, problems: list[str]) -> None:
        super().__init__(f"{path}: " + join_problems(problems))
        self.problems = problems


#: What to do with a file of which a part cannot be read.
_DAMAGED = "copy the file again, or write it again with the program that made it"


@contextmanager
def explain_hdf5_errors(element: Any) -> Iterator[None]:
    """Turn all errors that h5py raises while it reads ``element`` into `InvalidFileError`."""
    try:
        yield
    except UserError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        detail = _missing_filter(element) or f"{' '.join(str(error).split())}; {_DAMAGED}"
        raise InvalidFileError(
            element.file.filename, [f"{element.name} cannot be read: {detail}"]
        ) from error


def _missing_filter(element: Any) -> str | None:
    """Describe the compression filter that a dataset needs and that is not installed."""
    if not isinstance(element, h5py.Dataset):
        return None
    properties = element.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, *_, name = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            label = name.decode(errors="replace") or "unknown"
            return (
                f"its compression ({label}, HDF5 filter {code}) is not installed; write the file "
                "with gzip compression"
            )
    return None


def read_part(part: Any, start: int, stop: int) -> np.ndarray[Any, Any]:
    """Read entries ``start`` to ``stop`` along the first axis of an array or HDF5 dataset."""
    if not isinstance(part, h5py.Dataset):
        return np.asarray(part[start:stop])
    with explain_hdf5_errors(part):
        return np.asarray(part[start:stop])


def read_attribute(element: h5py.Group | h5py.Dataset, name: str) -> str:
    """Return a text attribute of an HDF5 object; empty if there is none."""
    with explain_hdf5_errors(element):
        # In a damaged file it may have another type; reading that type can crash the process.
        attribute = element.attrs.get_id(name) if name in element.attrs else None
        if (
            attribute is None
            or attribute.shape != ()
            or h5py.check_string_dtype(attribute.dtype) is None
        ):
            return ""
        value = element.attrs[name]
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def read_names(element: h5py.Group, name: str) -> list[str]:
    """Return an attribute that is a list of names; empty if there is none."""
    with explain_hdf5_errors(element):
        attribute = element.attrs.get_id(name) if name in element.attrs else None
        if (
            attribute is None
            or len(attribute.shape) != 1
            or h5py.check_string_dtype(attribute.dtype) is None
        ):
            return []
        values = element.attrs[name]
        return [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]


def read_values(dataset: h5py.Dataset) -> np.ndarray[Any, Any]:
    """Read a column of numbers or strings, shape (n,).

    anndata's reader is not used, because it trusts the types in the file and the length of its
    strings: a wrong type can crash the process, and a few bytes can expand to gigabytes of strings.

    Raises
    ------
    InvalidFileError
        The dataset is not such a column, or its strings have more than 1000 characters on average.
    """
    path, name = dataset.file.filename, dataset.name
    with explain_hdf5_errors(dataset):
        is_text = h5py.check_string_dtype(dataset.dtype) is not None
        if dataset.ndim != 1 or not (is_text or dataset.dtype.kind in "biuf"):
            raise InvalidFileError(path, [f"{name} is not a column of numbers or strings"])
        if not is_text:
            return np.asarray(dataset[:])
        texts: list[str] = []
        length = 0
        for start in range(0, len(dataset), _STRINGS_PER_READ):
            part = dataset.asstr()[start : start + _STRINGS_PER_READ]
            texts += list(part)
            length += sum(map(len, part))
            if length > _MAX_MEAN_LENGTH * len(texts):
                problem = (
                    f"{name} contains strings of {length // len(texts)} characters on average; "
                    f"names and labels may have at most {_MAX_MEAN_LENGTH}"
                )
                raise InvalidFileError(path, [problem])
        return np.array(texts, dtype=object)


def declared_bytes(dataset: h5py.Dataset) -> int:
    """Return the memory of a whole dataset in bytes, or of one chunk if that is larger."""
    shape, chunks = dataset.shape, dataset.chunks
    values = 0 if shape is None else math.prod(shape)
    return int(max(values, math.prod(chunks) if chunks else 0) * dataset.id.get_type().get_size())


def format_bytes(size: float) -> str:
    """Return a number of bytes as text in MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
