"""Checked cells of a dataset: raw counts, class labels and their fingerprint."""

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

#: Column of ``var`` with the original names of genes.
GENE_ID = "gene_id"
#: Largest size of the counts, in bytes, that is pickled; larger counts are reopened from disk.
_MAX_PICKLED_BYTES = 256 * 2**20
#: Array elements that are hashed at once.
_HASH_BLOCK = 2**22


@dataclass(frozen=True)
class Cells:
    """Checked cells, ready for a trial.

    Attributes
    ----------
    name
        Name of the dataset or of the user's file.
    adata
        Raw counts as CSR float32 in ``X``; ``obs`` has the label column only. If genes are not
        named by the index of the user's ``var``, ``var["gene_id"]`` has that name. Never modified.
    label_key
        The ``obs`` column with the classes (categorical).
    normalization
        As in :class:`mmlab.datasets.description.Description`.
    origin, notes
        Source of the cells, and limitations that matter for the interpretation of results.
    simulated
        Whether the counts are simulated; ``var["is_marker"]`` then has the true markers.
    recorded_fingerprint
        Fingerprint from the cache record of a verified file; empty if it has to be computed.
    reopen
        Returns the same cells, in any process on a machine that has their file.
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
        """Pickle large cells as a call of ``reopen``, and others by value."""
        if self.is_reopened:
            return self.reopen, ()
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["recorded_fingerprint"] = self.fingerprint
        return Cells, tuple(content.values())

    @property
    def is_reopened(self) -> bool:
        """Whether a process that is given these cells opens their file, as they are large."""
        return self.reopen is not None and self.adata.X.data.nbytes > _MAX_PICKLED_BYTES

    @property
    def classes(self) -> list[str]:
        """Class names in alphabetical order; value i of :attr:`y` is the i-th class."""
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

    @property
    def gene_ids(self) -> NDArray[np.str_] | None:
        """Original names of the genes, shape (n_genes,); None if :attr:`genes` are these."""
        ids = self.adata.var.get(GENE_ID)
        return None if ids is None else np.asarray(ids, dtype=str)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of counts, gene names, labels and normalization."""
        if self.recorded_fingerprint:
            return self.recorded_fingerprint
        counts = self.adata.X
        digest = hashlib.sha256()
        digest.update(repr((counts.shape, self.normalization)).encode())
        for array, kind in ((counts.indptr, "<i8"), (counts.indices, "<i8"), (counts.data, "<f4")):
            for start in range(0, len(array), _HASH_BLOCK):
                digest.update(np.asarray(array[start : start + _HASH_BLOCK], dtype=kind).tobytes())
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
    gene_ids: pd.Index | None = None,
    copy: bool = True,
) -> Cells:
    """Return the counts, names and labels of ``adata`` in the canonical form of :class:`Cells`.

    With ``copy=False`` the cells share the counts of ``adata`` if these are CSR float32.
    ``gene_ids`` are the original names of genes that are named otherwise.
    """
    counts = sp.csr_matrix(adata.X, dtype=np.float32, copy=copy)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    labels = pd.Categorical(adata.obs[label_key].astype(str))
    clean = ad.AnnData(
        X=counts,
        obs=pd.DataFrame({label_key: labels}, index=adata.obs_names.astype(str)),
        var=gene_table(adata.var_names.astype(str), gene_ids),
    )
    if simulated and "is_marker" in adata.var:
        clean.var["is_marker"] = adata.var["is_marker"].to_numpy(dtype=bool)
    return Cells(name, clean, label_key, normalization, origin, simulated, notes)


def gene_table(names: pd.Index, gene_ids: pd.Index | None) -> pd.DataFrame:
    """Return the table ``var`` of genes, with their original names if these differ."""
    columns = {} if gene_ids is None else {GENE_ID: gene_ids.to_numpy(dtype=object)}
    return pd.DataFrame(columns, index=names)
