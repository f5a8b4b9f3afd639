"""Mouse brain, single nuclei, 9 broad types (Kleshchevnikov et al., Nat Biotechnol 2022)."""

from __future__ import annotations

from functools import partial
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets.description import Dataset
from mmlab.datasets.gene_filters import is_detected, tells_types
from mmlab.datasets.io.h5ad import open_h5ad
from mmlab.datasets.remote_files import Files, RemoteFile

_PLACE = "https://cell2location.cog.sanger.ac.uk/tutorial/mouse_brain_snrna/"
COUNTS, ANNOTATION = (
    RemoteFile(file, (_PLACE + file,))
    for file in (
        "all_cells_20200625.h5ad",
        "snRNA_annotation_astro_subtypes_refined59_20200823.csv",
    )
)
SOURCES = (COUNTS, ANNOTATION)
ORIGIN = (
    "Kleshchevnikov et al., Nature Biotechnology 2022 (E-MTAB-11115), the single-nucleus "
    "reference of cell2location"
)
LICENSE = "not stated where it is downloaded; public (E-MTAB-11115)"
LABELS_SEEN = "Genes were chosen with the labels of all cells, test cells included, as published."


def load(files: Files, types: Literal["broad", "fine"], all_genes: bool = False) -> ad.AnnData:
    """Counts of the annotated nuclei.

    Parameters
    ----------
    files
        The two files of :data:`SOURCES`.
    types
        ``fine`` are the 59 types of the annotation, ``broad`` what their names begin with, up to
        the first underscore; of these, ``Unk`` is left out.
    all_genes
        Keep every gene; else those that are detected and tell types, see
        :mod:`mmlab.datasets.gene_filters`.
    """
    annotation = pd.read_csv(files[ANNOTATION.file], index_col=0)["annotation_1"]
    with open_h5ad(str(files[COUNTS.file])):
        source = ad.read_h5ad(files[COUNTS.file])
    labels = annotation.reindex(source.obs_names)
    if types == "broad":
        labels = labels.str.split("_").str[0]
    known = (labels.notna() & (labels != "Unk")).to_numpy()
    counts, labels = sp.csr_matrix(source.X)[known], labels[known]
    some = np.diff(counts.indptr) > 0
    counts, labels = counts[some], labels[some]
    symbols = source.var["SYMBOL"]
    kept = np.ones(len(symbols), dtype=bool)
    if not all_genes:
        kept = symbols.notna().to_numpy() & is_detected(counts)
        y = pd.factorize(labels)[0].astype(np.int64)
        kept[kept] = tells_types(counts[:, kept], y)
    # A gene without a symbol keeps its identifier.
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
    notes=(LABELS_SEEN,),
)
