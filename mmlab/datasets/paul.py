"""Mouse myeloid progenitors, 10 types (Paul et al., Cell 2015)."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets.description import Dataset
from mmlab.datasets.gene_filters import has_excluded_name
from mmlab.datasets.remote_files import (
    BONE_MARROW,
    STEM_CELLS,
    Files,
    RemoteFile,
    housekeeping_genes,
)

FILE = RemoteFile(
    "paul15.h5",
    ("https://falexwolf.de/data/paul15.h5",),
    "6161984f758dd464992edc23f1a8ab89b2081600130c6aa93a1ab12b3ada5bfb",
)

#: Types of the 19 original clusters, which are numbered from 1.
TYPES = (
    *["Ery"] * 6,
    "MEP",
    "Mk",
    *["GMP"] * 2,
    "DC",
    *["Baso"] * 2,
    *["Mo"] * 2,
    *["Neu"] * 2,
    "Eos",
    "Lymph",
)


def load(files: Files) -> ad.AnnData:
    """Return the counts of the informative genes without excluded and housekeeping genes."""
    counts, genes, cells, clusters = _read(files[FILE.name])
    kept = ~has_excluded_name(genes, housekeeping_genes(files))
    return ad.AnnData(
        X=sp.csr_matrix(counts[:, kept]),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical([TYPES[cluster - 1] for cluster in clusters])},
            index=cells,
        ),
        var=pd.DataFrame(index=np.asarray(genes)[kept]),
    )


def _read(path: Path) -> tuple[np.ndarray, list[str], list[str], np.ndarray]:
    """Read counts (cells x informative genes), gene names, cell names and cluster numbers."""
    with h5py.File(path) as file:
        counts = file["data.debatched"][()].T  # genes x cells in the file
        genes = file["data.debatched_rownames"].asstr()[()]
        cells = file["data.debatched_colnames"].asstr()[()]
        clusters = file["cluster.id"][()].ravel().astype(int)
        informative = file["info.genes_strings"].asstr()[()].ravel()
    # Some genes have two names, "A;B": the first is used. Of genes with the same name, the first
    # gene is used.
    position: dict[str, int] = {}
    for index, name in enumerate(genes):
        position.setdefault(name.split(";")[0], index)
    # A few informative genes have corrupted names, which are not in the matrix.
    chosen = sorted(set(informative) & set(position))
    return counts[:, [position[name] for name in chosen]], chosen, list(cells), clusters


DATASET = Dataset(
    name="paul",
    title="mouse myeloid progenitors (Paul 2015)",
    origin="Paul et al., Cell 2015 (GSE72857), the file used by scanpy",
    license="not stated by its source; public (GEO)",
    n_cells=2730,
    n_genes=3074,
    n_classes=10,
    label_key="cell_type",
    normalization="total",
    load=load,
    sources=(FILE, BONE_MARROW, STEM_CELLS),
    notes=(
        "The 19 original clusters are merged into 10 types.",
        "Counts are normalised after the gene filter; the paper normalised them before it.",
    ),
)
