"""Open a stored matrix: an HDF5 group or dataset, a scipy matrix or a numpy array."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp

from mmlab.datasets.io.hdf5 import explain_hdf5_errors, read_attribute
from mmlab.datasets.io.matrix import InvalidMatrixError, Matrix, corrupt_matrix


def open_matrix(element: Any) -> Matrix:
    """Return the matrix of an HDF5 group or dataset, a scipy matrix or a numpy array.

    A :class:`Matrix` is checked and returned.

    Raises
    ------
    InvalidMatrixError
        ``element`` is not a matrix, is not stored as CSR, CSC or dense, its values are not real
        numbers, or the sizes of its parts do not match.
    """
    if isinstance(element, Matrix):
        return _require_numbers(element) if element.kind == "dense" else _check_parts(element)
    if isinstance(element, h5py.Group):
        with explain_hdf5_errors(element):
            return _check_parts(_from_group(element))
    if isinstance(element, h5py.Dataset):
        with explain_hdf5_errors(element):
            return _require_numbers(_from_array(element))
    if isinstance(element, np.ndarray):
        return _require_numbers(_from_array(element))
    if sp.issparse(element):
        return _check_parts(_from_scipy(element))
    raise InvalidMatrixError(
        f"is of type {type(element).__name__}; a numpy array or a scipy CSR matrix is needed"
    )


def _from_array(values: Any) -> Matrix:
    if values.ndim != 2:
        raise InvalidMatrixError(f"has {values.ndim} dimensions; a matrix of cells x genes has 2")
    return Matrix("dense", (int(values.shape[0]), int(values.shape[1])), values)


def _require_numbers(matrix: Matrix) -> Matrix:
    if matrix.dtype.kind not in "biuf":
        raise InvalidMatrixError(f"has values of type {matrix.dtype}; raw counts are needed")
    return matrix


def _from_scipy(matrix: Any) -> Matrix:
    if matrix.format not in ("csr", "csc"):
        raise InvalidMatrixError(
            f"is a sparse matrix in {matrix.format.upper()} format; convert it with its tocsr()"
        )
    return Matrix(matrix.format, matrix.shape, matrix.data, matrix.indices, matrix.indptr)


def _from_group(group: h5py.Group) -> Matrix:
    """Return a sparse matrix of a file; anndata before 0.7 wrote ``h5sparse`` attributes."""
    encoding = read_attribute(group, "encoding-type") or read_attribute(group, "h5sparse_format")
    kind = encoding.removesuffix("_matrix")
    if kind not in ("csr", "csc"):
        raise InvalidMatrixError(f"is stored as {encoding or 'an unknown group'}; store it as CSR")
    name = "shape" if "shape" in group.attrs else "h5sparse_shape"
    missing = [part for part in ("data", "indices", "indptr") if part not in group]
    if missing or name not in group.attrs:
        raise corrupt_matrix(f"it lacks {', '.join(missing) or 'its shape'}")
    declared = group.attrs.get_id(name)
    if declared.shape != (2,) or declared.dtype.kind not in "iu":
        raise corrupt_matrix("its shape is not two integers")
    n_cells, n_genes = (int(n) for n in group.attrs[name])
    parts = (group["data"], group["indices"], group["indptr"])
    return Matrix("csr" if kind == "csr" else "csc", (n_cells, n_genes), *parts)


def _check_parts(matrix: Matrix) -> Matrix:
    """Check that the sizes of the parts match; their values are checked when they are read."""
    parts = {"data": matrix.values, "indices": matrix.indices, "indptr": matrix.indptr}
    for name, part in parts.items():
        if getattr(part, "ndim", None) != 1:
            raise corrupt_matrix(f"its {name} array is not one-dimensional")
        if name != "data" and part.dtype.kind not in "iu":
            raise corrupt_matrix(f"its {name} array has the type {part.dtype}, not integers")
    n_major = matrix.shape[0] if matrix.kind == "csr" else matrix.shape[1]
    if len(matrix.values) != len(matrix.indices):
        raise corrupt_matrix(
            f"it has {len(matrix.values)} values, but {len(matrix.indices)} indices"
        )
    if len(matrix.indptr) != n_major + 1 or min(matrix.shape) < 0:
        raise corrupt_matrix(
            f"its shape is {matrix.shape}, but its indptr has {len(matrix.indptr)} "
            f"entries where {n_major + 1} are needed"
        )
    return _require_numbers(matrix)
