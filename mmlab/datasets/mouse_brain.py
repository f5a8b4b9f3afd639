"""Mouse brain, single nuclei, 9 broad types (Kleshchevnikov et al., Nat Biotechnol 2022)."""

from __future__ import annotations

from functools import partial
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets.description import Dataset
from mmlab.datasets.gene_filters import is_detected, is_type_specific
from mmlab.datasets.io.h5ad import open_h5ad
from mmlab.datasets.remote_files import Files, RemoteFile

_FOLDER = "https://cell2location.cog.sanger.ac.uk/tutorial/mouse_brain_snrna/"
COUNTS, ANNOTATION = (
    RemoteFile(name, (_FOLDER + name,))
    for name in (
        "all_cells_20200625.h5ad",
        "snRNA_annotation_astro_subtypes_refined59_20200823.csv",
    )
)
SOURCES = (COUNTS, ANNOTATION)
ORIGIN = (
    "Kleshchevnikov et al., Nature Biotechnology 2022 (E-MTAB-11115), the single-nucleus "
    "reference of cell2location"
)
LICENSE = "not stated on its download page; public (E-MTAB-11115)"
LABEL_LEAKAGE = (
    "As published, the gene filter used the labels of all cells, including the test cells."
)


def load(files: Files, types: Literal["broad", "fine"], all_genes: bool = False) -> ad.AnnData:
    """Return the counts of the annotated nuclei.

    Parameters
    ----------
    files
        The two files of :data:`SOURCES`.
    types
        ``fine``: the 59 types of the annotation. ``broad``: the prefixes of their names, up to the
        first underscore; the broad type ``Unk`` is removed.
    all_genes
        Keep all genes. Otherwise genes with a symbol that are detected and type-specific are kept,
        see :mod:`mmlab.datasets.gene_filters`.
    """
    annotation = pd.read_csv(files[ANNOTATION.name], index_col=0)["annotation_1"]
    with open_h5ad(str(files[COUNTS.name])):
        source = ad.read_h5ad(files[COUNTS.name])
    labels = annotation.reindex(source.obs_names)
    if types == "broad":
        labels = labels.str.split("_").str[0]
    known = (labels.notna() & (labels != "Unk")).to_numpy()
    counts, labels = sp.csr_matrix(source.X)[known], labels[known]
    not_empty = np.diff(counts.indptr) > 0
    counts, labels = counts[not_empty], labels[not_empty]
    symbols = source.var["SYMBOL"]
    kept = np.ones(len(symbols), dtype=bool)
    if not all_genes:
        kept = symbols.notna().to_numpy() & is_detected(counts)
        y = pd.factorize(labels)[0].astype(np.int64)
        kept[kept] = is_type_specific(counts[:, kept], y)
    # A gene without a symbol is named by its Ensembl identifier.
    names = symbols.astype(object).where(symbols.notna(), source.var_names).astype(str)
    return ad.AnnData(
        X=counts[:, kept],
        obs=pd.DataFrame({"cell_type": pd.Categorical(labels)}, index=labels.index.astype(str)),
        var=pd.DataFrame(index=ad.utils.make_index_unique(pd.Index(names[kept]))),
    )


DATASET = Dataset(
    name="mouse_brain",
    title="mouse brain nuclei, broad types (Kleshchevnikov 2022)",
    origin=ORIGIN,
    license=LICENSE,
    n_cells=39583,
    n_genes=4581,
    n_classes=9,
    label_key="cell_type",
    normalization="total",
    load=partial(load, types="broad"),
    sources=SOURCES,
    notes=(LABEL_LEAKAGE,),
)
