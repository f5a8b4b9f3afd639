"""Mouse visual cortex, Smart-seq v4, 92 types (Tasic et al., Nature 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets.description import Dataset
from mmlab.datasets.gene_filters import is_general, tells_types
from mmlab.datasets.io.zip_archive import open_archive, open_member
from mmlab.datasets.mouse_brain import LABELS_SEEN
from mmlab.datasets.remote_files import BONE_MARROW, STEM_CELLS, Files, RemoteFile, housekeeping

ARCHIVE = RemoteFile(
    "mouse_VISp_gene_expression_matrices_2018-06-14.zip",
    ("https://celltypes.brain-map.org/api/v2/well_known_file_download/694413985",),
)
LABELS = RemoteFile(
    "VISp_PERSIST_metadata.csv",
    ("https://raw.githubusercontent.com/iancovert/persist/main/data/VISp_PERSIST_metadata.csv",),
    "d5e7b0577ebbc0d3e908072ba6441054c0d32fb2ac5a6f4e9b173b9d8cd1ed85",
)
_MATRIX, _GENES, _SAMPLES = (
    f"mouse_VISp_2018-06-14_{part}.csv" for part in ("exon-matrix", "genes-rows", "samples-columns")
)
#: Genes of the matrix that are read at once.
_ROWS = 500
#: A type with fewer cells is left out: it could not be split.
_FEWEST_CELLS = 4
#: The paper began with the genes that PERSIST had kept.
_N_VARIABLE = 10_000


def load(files: Files) -> ad.AnnData:
    """Exon counts of the cells that PERSIST annotated, of the genes that the paper kept."""
    labels = pd.read_csv(files[LABELS.file], index_col="seq_name")["cell_types_98"]
    sizes = labels.value_counts()
    labels = labels[labels.map(sizes) >= _FEWEST_CELLS]
    everything = _read(files[ARCHIVE.file], labels)
    adata = everything[:, _most_variable(everything)].copy()
    adata = adata[:, ~is_general(adata.var_names, housekeeping(files))].copy()
    adata = adata[np.diff(adata.X.indptr) > 0].copy()
    y = adata.obs["cell_type"].cat.codes.to_numpy(dtype=np.int64)
    return adata[:, tells_types(adata.X, y)].copy()


def _read(path: Path, labels: pd.Series) -> ad.AnnData:
    """All genes of the labelled cells; ``labels`` by ``seq_name``."""
    with open_archive(path) as archive:
        with open_member(archive, _SAMPLES) as stream:
            samples = pd.read_csv(stream, encoding="latin-1")
        with open_member(archive, _GENES) as stream:
            genes = pd.read_csv(stream)
        chosen = samples[samples["seq_name"].isin(labels.index)]
        with open_member(archive, _MATRIX) as stream:
            parts = list(_rows(stream, chosen["sample_name"].tolist()))
    symbols = genes.set_index("gene_entrez_id")["gene_symbol"]
    rows = np.concatenate([entrez for entrez, _ in parts])
    return ad.AnnData(
        X=sp.vstack([counts for _, counts in parts]).T.tocsr(),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical(labels[chosen["seq_name"]])},
            index=chosen["sample_name"].astype(str),
        ),
        var=pd.DataFrame(index=ad.utils.make_index_unique(pd.Index(symbols[rows].astype(str)))),
    )


def _rows(stream: IO[bytes], samples: list[str]) -> Iterator[tuple[np.ndarray, sp.csr_matrix]]:
    """Entrez ids and counts (genes x samples) of some rows of the matrix at a time."""
    for table in pd.read_csv(stream, index_col=0, chunksize=_ROWS):
        counts = table[samples].to_numpy(dtype=np.float32)
        yield table.index.to_numpy(), sp.csr_matrix(counts)


def _most_variable(adata: ad.AnnData) -> np.ndarray:
    """PERSIST's choice: highly variable genes by scanpy, flavour cell_ranger; (n_genes,) bool."""
    if adata.n_vars <= _N_VARIABLE:
        return np.ones(adata.n_vars, dtype=bool)
    import scanpy as sc

    values = adata.copy()
    sc.pp.normalize_total(values, target_sum=1e6)
    sc.pp.log1p(values)
    sc.pp.highly_variable_genes(values, flavor="cell_ranger", n_top_genes=_N_VARIABLE)
    return np.asarray(values.var["highly_variable"], dtype=bool)


DATASET = Dataset(
    name="ssv4",
    title="mouse visual cortex, Smart-seq v4 (Tasic 2018)",
    origin="Tasic et al., Nature 2018 (Allen Institute); types of PERSIST (Covert 2023)",
    license="Allen Institute terms of use (non-commercial)",
    n_cells=13342,
    n_genes=4293,
    n_classes=92,
    label_key="cell_type",
    normalization="total",
    load=load,
    sources=(ARCHIVE, LABELS, BONE_MARROW, STEM_CELLS),
    notes=(LABELS_SEEN, "Types with fewer than 4 cells are left out."),
)
