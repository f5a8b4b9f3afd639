"""Mouse myeloid progenitors, 10 types (Paul et al., Cell 2015)."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets.description import Dataset
from mmlab.datasets.gene_filters import is_general
from mmlab.datasets.remote_files import BONE_MARROW, STEM_CELLS, Files, RemoteFile, housekeeping

FILE = RemoteFile(
    "paul15.h5",
    ("https://falexwolf.de/data/paul15.h5",),
    "6161984f758dd464992edc23f1a8ab89b2081600130c6aa93a1ab12b3ada5bfb",
)

#: The 19 clusters of the original, from 1, as 10 types.
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
    """Counts of the informative genes, without general and housekeeping genes."""
    counts, genes, cells, clusters = _read(files[FILE.file])
    kept = ~is_general(genes, housekeeping(files))
    return ad.AnnData(
        X=sp.csr_matrix(counts[:, kept]),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical([TYPES[cluster - 1] for cluster in clusters])},
            index=cells,
        ),
        var=pd.DataFrame(index=np.asarray(genes)[kept]),
    )


def _read(path: Path) -> tuple[np.ndarray, list[str], list[str], np.ndarray]:
    """Counts (cells x informative genes), names of genes and of cells, and cluster numbers."""
    with h5py.File(path) as file:
        counts = file["data.debatched"][()].T  # genes x cells in the file
        genes = file["data.debatched_rownames"].asstr()[()]
        cells = file["data.debatched_colnames"].asstr()[()]
        clusters = file["cluster.id"][()].ravel().astype(int)
        informative = file["info.genes_strings"].asstr()[()].ravel()
    # Some genes have two names, "A;B"; of equal ones the first is taken.
    place: dict[str, int] = {}
    for index, name in enumerate(genes):
        place.setdefault(name.split(";")[0], index)
    # A few of the informative genes have corrupted names, which no gene of the matrix has.
    chosen = sorted(set(informative) & set(place))
    return counts[:, [place[name] for name in chosen]], chosen, list(cells), clusters


DATASET = Dataset(
    name="paul",
    title="mouse myeloid progenitors (Paul 2015)",
    origin="Paul et al., Cell 2015 (GSE72857), as scanpy has it",
    license="not stated by its source; public (GEO)",
    n_cells=2730,
    n_genes=3074,
    n_classes=10,
    label_key="cell_type",
    normalization="total",
    load=load,
    sources=(FILE, BONE_MARROW, STEM_CELLS),
    notes=(
        "The 19 clusters of the original are merged to 10 types.",
        "Counts are normalised over the genes that are kept; the paper normalised before it "
        "left genes out.",
    ),
)
