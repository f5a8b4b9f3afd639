"""The matrix of an HDF5 group or dataset, of scipy or of numpy, checked."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp

from mmlab.datasets.io.hdf5 import explain_hdf5_errors, read_attribute
from mmlab.datasets.io.matrix import BrokenMatrixError, Matrix


def open_matrix(element: Any) -> Matrix:
    """The matrix of an HDF5 group or dataset, of scipy or of numpy.

    Raises
    ------
    BrokenMatrixError
        It is none, is not stored as CSR, CSC or dense, its values are no real numbers, or its
        parts do not fit together.
    """
    if isinstance(element, h5py.Group):
        with explain_hdf5_errors(element):
            return _checked(_from_group(element))
    if isinstance(element, h5py.Dataset):
        with explain_hdf5_errors(element):
            return _of_numbers(_from_array(element))
    if isinstance(element, np.ndarray):
        return _of_numbers(_from_array(element))
    if sp.issparse(element):
        return _checked(_from_scipy(element))
    raise BrokenMatrixError(
        f"is of type {type(element).__name__}; a numpy array or a scipy CSR matrix is needed"
    )


def _from_array(values: Any) -> Matrix:
    if values.ndim != 2:
        raise BrokenMatrixError(f"has {values.ndim} dimensions; a matrix of cells x genes has 2")
    return Matrix("dense", (int(values.shape[0]), int(values.shape[1])), values)


def _of_numbers(matrix: Matrix) -> Matrix:
    if matrix.dtype.kind not in "biuf":
        raise BrokenMatrixError(f"holds values of type {matrix.dtype}; raw counts are needed")
    return matrix


def _from_scipy(matrix: Any) -> Matrix:
    if matrix.format not in ("csr", "csc"):
        raise BrokenMatrixError(
            f"is a sparse matrix in {matrix.format.upper()} format: CSR is needed, call its tocsr()"
        )
    return Matrix(matrix.format, matrix.shape, matrix.data, matrix.indices, matrix.indptr)


def _from_group(group: h5py.Group) -> Matrix:
    """A sparse matrix of a file; ``h5sparse`` is what anndata wrote before 0.7."""
    encoding = read_attribute(group, "encoding-type") or read_attribute(group, "h5sparse_format")
    kind = encoding.removesuffix("_matrix")
    if kind not in ("csr", "csc"):
        raise BrokenMatrixError(f"is stored as {encoding or 'an unknown group'}: CSR is needed")
    name = "shape" if "shape" in group.attrs else "h5sparse_shape"
    missing = [part for part in ("data", "indices", "indptr") if part not in group]
    if missing or name not in group.attrs:
        raise BrokenMatrixError(f"is broken: it lacks {', '.join(missing) or 'its shape'}")
    declared = group.attrs.get_id(name)
    if declared.shape != (2,) or declared.dtype.kind not in "iu":
        raise BrokenMatrixError("is broken: its shape is not two integers")
    n_cells, n_genes = (int(n) for n in group.attrs[name])
    parts = (group["data"], group["indices"], group["indptr"])
    return Matrix("csr" if kind == "csr" else "csc", (n_cells, n_genes), *parts)


def _checked(matrix: Matrix) -> Matrix:
    """Sizes that fit together; what the parts hold is checked as it is read."""
    parts = {"data": matrix.values, "indices": matrix.indices, "indptr": matrix.indptr}
    for name, part in parts.items():
        if not isinstance(part, h5py.Dataset | np.ndarray) or part.ndim != 1:
            raise BrokenMatrixError(f"is broken: its {name} is not a list of values")
        if name != "data" and part.dtype.kind not in "iu":
            raise BrokenMatrixError(f"is broken: its {name} holds {part.dtype}, not integers")
    n_lines = matrix.shape[0] if matrix.kind == "csr" else matrix.shape[1]
    if len(matrix.values) != len(matrix.indices):
        raise BrokenMatrixError(
            f"is broken: it has {len(matrix.values)} values, but {len(matrix.indices)} indices"
        )
    if len(matrix.indptr) != n_lines + 1 or min(matrix.shape) < 0:
        raise BrokenMatrixError(
            f"is broken: its shape is {matrix.shape}, but its indptr has {len(matrix.indptr)} "
            f"entries where {n_lines + 1} are needed"
        )
    return _of_numbers(matrix)
