"""What a dataset is: a description, a way to load raw counts, and checked cells in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

Normalization = Literal["total", "none", "l2"]


#: Bytes of values above which cells are not sent to another process.
_LARGEST_PARCEL = 256 * 2**20
#: Numbers that are hashed at once.
_AT_ONCE = 2**22


@dataclass(frozen=True)
class Cells:
    """Checked cells, ready for a trial: raw counts, classes, and the identity of both.

    Attributes
    ----------
    name
        Of the dataset, or of the user's file.
    adata
        Raw counts as CSR float32 in ``X``; ``obs`` holds the label column alone. Never changed.
    label_key
        The ``obs`` column with the classes (categorical).
    normalization
        As in :class:`Description`.
    origin, notes
        Where the cells come from, and what to know before trusting a result, for people.
    recorded_fingerprint
        Known beforehand, of cells whose file has been verified.
    reopen
        Gives these cells again, in a process on whatever machine that has their file.
    """

    name: str
    adata: ad.AnnData
    label_key: str
    normalization: Normalization
    origin: str
    simulated: bool = False
    notes: tuple[str, ...] = ()
    recorded_fingerprint: str = ""
    reopen: Callable[[], Cells] | None = None

    def __reduce__(self) -> Any:
        """Large cells travel to another process by the name of their file, others as they are."""
        if self.reopen is not None and self.adata.X.data.nbytes > _LARGEST_PARCEL:
            return self.reopen, ()
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["recorded_fingerprint"] = self.fingerprint
        return Cells, tuple(content.values())

    @property
    def classes(self) -> list[str]:
        """Class names in alphabetical order; class i of :attr:`y` is the i-th."""
        return [str(c) for c in self.adata.obs[self.label_key].cat.categories]

    @property
    def y(self) -> NDArray[np.int64]:
        """Class index of each cell, shape (n_cells,)."""
        codes = self.adata.obs[self.label_key].cat.codes
        return np.asarray(codes, dtype=np.int64)

    @property
    def genes(self) -> NDArray[np.str_]:
        """Gene names, shape (n_genes,)."""
        return np.asarray(self.adata.var_names, dtype=str)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over counts, gene names, labels and normalization."""
        if self.recorded_fingerprint:
            return self.recorded_fingerprint
        counts = self.adata.X
        digest = hashlib.sha256()
        digest.update(repr((counts.shape, self.normalization)).encode())
        for array, kind in ((counts.indptr, "<i8"), (counts.indices, "<i8"), (counts.data, "<f4")):
            for start in range(0, len(array), _AT_ONCE):
                digest.update(np.asarray(array[start : start + _AT_ONCE], dtype=kind).tobytes())
        for names in (self.genes, self.classes):
            digest.update("\0".join(names).encode() + b"\1")
        digest.update(self.y.astype("<i8").tobytes())
        return digest.hexdigest()


def make_cells(
    adata: ad.AnnData,
    label_key: str,
    *,
    name: str,
    normalization: Normalization,
    origin: str,
    simulated: bool = False,
    notes: tuple[str, ...] = (),
    copy: bool = True,
) -> Cells:
    """Cells from checked counts: only what a trial needs, in one canonical form.

    Without ``copy`` the counts of ``adata`` become those of the cells, if their type allows it.
    """
    counts = sp.csr_matrix(adata.X, dtype=np.float32, copy=copy)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    labels = pd.Categorical(adata.obs[label_key].astype(str))
    clean = ad.AnnData(
        X=counts,
        obs=pd.DataFrame({label_key: labels}, index=adata.obs_names.astype(str)),
        var=pd.DataFrame(index=adata.var_names.astype(str)),
    )
    if simulated and "is_marker" in adata.var:
        clean.var["is_marker"] = adata.var["is_marker"].to_numpy(dtype=bool)
    return Cells(name, clean, label_key, normalization, origin, simulated, notes)
