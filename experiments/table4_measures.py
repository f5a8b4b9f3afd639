"""Measures of table 4 of the paper, and their Markdown tables."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mmlab.datasets.cells import Cells, Normalization
from mmlab.metrics.reconstruction import METRICS_BY_TYPE, reconstruction_by_type
from mmlab.preprocessing.normalization import log_normalize, standardize
from mmlab.preprocessing.recipes import gene_statistics

Matrix = NDArray[np.float32]

#: The dataset of the published table.
PUBLISHED = "mouse_brain"
ALL_CELLS = "all test cells"
#: Column headings by scale (the paper's, mmlab's z-scores, raw counts) and measure.
COLUMNS = {
    **{("matrix", measure): measure for measure in METRICS_BY_TYPE},
    **{("gene", measure): f"z {measure}" for measure in METRICS_BY_TYPE},
    **{("counts", measure): f"count {measure}" for measure in ("jaccard", "spearman")},
}


@dataclass(frozen=True)
class Scale:
    """Transformation of raw counts to z-scores of log1p values.

    The statistics are those of the training cells.

    Attributes
    ----------
    normalization
        Normalization of the dataset.
    mean, sd
        Mean and standard deviation of each gene, shape (n_genes,).
    whole_mean, whole_sd
        Mean and standard deviation over all cells and genes.
    """

    normalization: Normalization
    mean: Matrix
    sd: Matrix
    whole_mean: float
    whole_sd: float

    @classmethod
    def of(cls, cells: Cells, train: NDArray[np.int64]) -> Scale:
        """Return the scale of a split whose training cells are ``train``."""
        counts: Any = cells.adata.X
        log_values = log_normalize(counts[train], cells.normalization)
        dense = log_values.toarray()
        whole = float(dense.mean(dtype=np.float64)), float(dense.std(dtype=np.float64))
        return cls(cells.normalization, *gene_statistics(log_values, slice(None)), *whole)

    def z_scores(self, counts: sp.csr_matrix) -> Matrix:
        """Return z-scores per gene, clipped at +-10 as in all of mmlab; shape of ``counts``."""
        values = log_normalize(counts, self.normalization).toarray()
        return standardize(values, self.mean, self.sd)

    def paper(self, z: Matrix) -> Matrix:
        """Transform z-scores per gene to the paper's scale: z-scores of the whole matrix."""
        scaled: Matrix = (z * self.sd + self.mean - self.whole_mean) / self.whole_sd
        return scaled.astype(np.float32)


def measured(
    pairs: dict[str, tuple[Matrix, Matrix]], y: NDArray[np.int64], classes: list[str]
) -> pd.DataFrame:
    """Return the measures of table 4 for a reconstruction, per type and over all cells.

    Parameters
    ----------
    pairs
        True and reconstructed values by scale, shape (n_cells, n_genes) each.
    y
        Class of each cell, an index of ``classes``.

    Returns
    -------
    Columns scale, cell_type, n_cells, measure, value; value is NaN for a type with fewer than two
    cells.
    """
    names = [*classes, ALL_CELLS]
    sizes = [*np.bincount(y, minlength=len(classes)).tolist(), len(y)]
    parts = []
    for scale, pair in pairs.items():
        of_types = reconstruction_by_type(*pair, y, len(classes))
        of_all = reconstruction_by_type(*pair, np.zeros_like(y), 1)
        for measure in METRICS_BY_TYPE:
            values = [*of_types[measure], *of_all[measure]]
            columns = {"cell_type": names, "n_cells": sizes, "measure": measure, "value": values}
            parts.append(pd.DataFrame({"scale": scale, **columns}))
    return pd.concat(parts, ignore_index=True)


def published() -> pd.DataFrame:
    """Return table 4 of the paper, with the columns of :func:`measured`, method and dataset.

    The paper evaluated one sample of scVI, and compared the variances of this sample on raw counts.
    """
    path = files("mmlab.comparison") / "paper" / "table4_reconstruction_by_cell_type.csv"
    with path.open("r") as stream:
        wide = pd.read_csv(stream)
    table = wide.melt(["cell_type", "method"], var_name="measure").replace("All", ALL_CELLS)
    scvi = table["method"] == "scvi"
    table["scale"] = np.where(scvi & (table["measure"] != "l2"), "counts", "matrix")
    table["sees"] = np.where(scvi, "all genes", "50 genes")
    table["method"] = table["method"].replace("scvi", "scvi_sample") + ", published"
    return table.assign(dataset=PUBLISHED)


def markdown(table: pd.DataFrame, made_by: str) -> str:
    """Return Markdown tables: means and sample standard deviations, and published numbers.

    Parameters
    ----------
    table
        Columns dataset, split, method, sees, epochs, and those of :func:`measured`.
    made_by
        Command and versions that made the table.
    """
    lines = [
        "# Table 4 of the paper: reconstruction by cell type",
        "",
        f"Made by {made_by}.",
        "",
        "All measures are computed on the test cells: mean ± sample standard deviation over "
        f"{table['split'].nunique()} splits. jaccard: Jaccard index of the 20 % most variable "
        "genes of the true and of the reconstructed values; spearman: rank correlation of the "
        "variances of the genes; l1, l2: mean distance of a cell to its reconstruction, over all "
        "genes. The first four columns use the paper's scale: one mean and standard deviation for "
        "the whole matrix. Columns with z use z-scores: one mean and standard deviation per gene, "
        "so that all genes have the same variance over all cells. Columns with count use raw "
        "counts, on which the paper measured a sample of scVI, but not MarkerMap. "
        f"The published numbers are those of {PUBLISHED}, with other cells and genes.",
        "",
    ]
    table = pd.concat([table, published()], ignore_index=True)
    lines += ["## All test cells", ""]
    lines += table_lines(table[table["cell_type"] == ALL_CELLS], "dataset")
    for name in table["dataset"].unique():
        lines += ["", f"## {name} by cell type", ""]
        lines += table_lines(table[table["dataset"] == name], "cell_type")
    return "\n".join(lines) + "\n"


def table_lines(part: pd.DataFrame, key: str) -> list[str]:
    """Return a Markdown table: one row per ``key`` and method, one column per scale and measure."""
    header = [key.replace("_", " "), "cells", "method", "sees", "epochs", *COLUMNS.values()]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for value in part[key].unique():
        rows = part[part[key] == value]
        for (method, sees), group in rows.groupby(["method", "sees"], sort=False):
            texts = [value, whole_mean(group["n_cells"]), method, sees, whole_mean(group["epochs"])]
            values = group.groupby(["scale", "measure"])["value"]
            known = dict(list(values))
            texts += [mean_and_spread(known.get(column)) for column in COLUMNS]
            lines.append("| " + " | ".join(texts) + " |")
    return lines


def whole_mean(values: pd.Series) -> str:
    """Return the mean of the known values as an integer; empty if none is known."""
    return f"{values.mean():.0f}" if values.notna().any() else ""


def mean_and_spread(values: pd.Series | None) -> str:
    """Return mean and sample standard deviation of the known values; empty if none is known."""
    known = np.array([]) if values is None else values.dropna().to_numpy(dtype=np.float64)
    if not len(known):
        return ""
    digits = 3 if np.abs(known).max() <= 1 else 1
    spread = f" ± {known.std(ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():.{digits}f}{spread}"
