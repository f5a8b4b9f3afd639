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
from mmlab.datasets.gene_filters import has_excluded_name, is_type_specific
from mmlab.datasets.io.zip_archive import open_archive, open_member
from mmlab.datasets.mouse_brain import LABEL_LEAKAGE
from mmlab.datasets.remote_files import (
    BONE_MARROW,
    STEM_CELLS,
    Files,
    RemoteFile,
    housekeeping_genes,
)

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
#: Rows (genes) of the matrix that are read at once.
_CHUNK_ROWS = 500
#: Types with fewer cells are removed, because they cannot be split.
_MIN_CELLS = 4
#: Number of highly variable genes that PERSIST kept, from which the paper started.
_N_VARIABLE = 10_000


def load(files: Files) -> ad.AnnData:
    """Return exon counts of the cells annotated by PERSIST and the genes kept in the paper."""
    labels = pd.read_csv(files[LABELS.name], index_col="seq_name")["cell_types_98"]
    sizes = labels.value_counts()
    labels = labels[labels.map(sizes) >= _MIN_CELLS]
    all_genes = _read(files[ARCHIVE.name], labels)
    adata = all_genes[:, _highly_variable(all_genes)].copy()
    adata = adata[:, ~has_excluded_name(adata.var_names, housekeeping_genes(files))].copy()
    adata = adata[np.diff(adata.X.indptr) > 0].copy()
    y = adata.obs["cell_type"].cat.codes.to_numpy(dtype=np.int64)
    return adata[:, is_type_specific(adata.X, y)].copy()


def _read(path: Path, labels: pd.Series) -> ad.AnnData:
    """Read all genes of the labelled cells; ``labels`` is indexed by ``seq_name``."""
    with open_archive(path) as archive:
        with open_member(archive, _SAMPLES) as stream:
            samples = pd.read_csv(stream, encoding="latin-1")
        with open_member(archive, _GENES) as stream:
            genes = pd.read_csv(stream)
        chosen = samples[samples["seq_name"].isin(labels.index)]
        with open_member(archive, _MATRIX) as stream:
            parts = list(_read_chunks(stream, chosen["sample_name"].tolist()))
    symbols = genes.set_index("gene_entrez_id")["gene_symbol"]
    entrez_ids = np.concatenate([ids for ids, _ in parts])
    return ad.AnnData(
        X=sp.vstack([counts for _, counts in parts]).T.tocsr(),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical(labels[chosen["seq_name"]])},
            index=chosen["sample_name"].astype(str),
        ),
        var=pd.DataFrame(
            index=ad.utils.make_index_unique(pd.Index(symbols[entrez_ids].astype(str)))
        ),
    )


def _read_chunks(
    stream: IO[bytes], samples: list[str]
) -> Iterator[tuple[np.ndarray, sp.csr_matrix]]:
    """Yield the Entrez ids and counts (genes x samples) of consecutive rows of the matrix."""
    for table in pd.read_csv(stream, index_col=0, chunksize=_CHUNK_ROWS):
        counts = table[samples].to_numpy(dtype=np.float32)
        yield table.index.to_numpy(), sp.csr_matrix(counts)


def _highly_variable(adata: ad.AnnData) -> np.ndarray:
    """Mark highly variable genes as PERSIST does (scanpy, flavor cell_ranger); (n_genes,)."""
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
    notes=(LABEL_LEAKAGE, "Types with fewer than 4 cells are removed."),
)
