"""What table 4 measures of a reconstruction, and how the numbers are shown."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mmlab.datasets.cells import Cells, Normalization
from mmlab.metrics.reconstruction import BY_TYPE, reconstruction_by_type
from mmlab.preprocessing.normalization import log_normalize, standardize
from mmlab.preprocessing.recipes import gene_statistics

Matrix = NDArray[np.float32]

#: The dataset of the published table.
PUBLISHED = "mouse_brain"
ALL_CELLS = "all test cells"
#: Heading of a column, by scale (the paper's, mmlab's z-scores, raw counts) and measure.
COLUMNS = {
    **{("matrix", measure): measure for measure in BY_TYPE},
    **{("gene", measure): f"z {measure}" for measure in BY_TYPE},
    **{("counts", measure): f"count {measure}" for measure in ("jaccard", "spearman")},
}


@dataclass(frozen=True)
class Scale:
    """From raw counts to z-scores of log1p values, statistics from the training cells.

    Attributes
    ----------
    normalization
        Of the dataset.
    mean, sd
        Of each gene, shape (n_genes,).
    whole_mean, whole_sd
        Over all cells and genes.
    """

    normalization: Normalization
    mean: Matrix
    sd: Matrix
    whole_mean: float
    whole_sd: float

    @classmethod
    def of(cls, cells: Cells, train: NDArray[np.int64]) -> Scale:
        """The scale of a split, from the cells ``train``."""
        counts: Any = cells.adata.X
        log_values = log_normalize(counts[train], cells.normalization)
        dense = log_values.toarray()
        whole = float(dense.mean(dtype=np.float64)), float(dense.std(dtype=np.float64))
        return cls(cells.normalization, *gene_statistics(log_values, slice(None)), *whole)

    def z_scores(self, counts: sp.csr_matrix) -> Matrix:
        """Of each gene, clipped at +-10 as everywhere in mmlab; shape of ``counts``."""
        values = log_normalize(counts, self.normalization).toarray()
        return standardize(values, self.mean, self.sd)

    def paper(self, z: Matrix) -> Matrix:
        """z-scores of each gene on the paper's scale: a z-score of the whole matrix."""
        scaled: Matrix = (z * self.sd + self.mean - self.whole_mean) / self.whole_sd
        return scaled.astype(np.float32)


def measured(
    pairs: dict[str, tuple[Matrix, Matrix]], y: NDArray[np.int64], classes: list[str]
) -> pd.DataFrame:
    """Table 4's measures of a reconstruction, of each type and over all cells.

    Parameters
    ----------
    pairs
        By scale: true and rebuilt values, shape (n_cells, n_genes) each.
    y
        Index in ``classes`` of each cell.

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
        for measure in BY_TYPE:
            values = [*of_types[measure], *of_all[measure]]
            columns = {"cell_type": names, "n_cells": sizes, "measure": measure, "value": values}
            parts.append(pd.DataFrame({"scale": scale, **columns}))
    return pd.concat(parts, ignore_index=True)


def published() -> pd.DataFrame:
    """The paper's table 4, as rows like those that are measured here.

    What it took of scVI is a sample, and it compared the variances of this one on raw counts.
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
    """Means and population standard deviations over the splits, and the published numbers.

    Parameters
    ----------
    table
        Columns dataset, split, method, sees, epochs, and those of :func:`measured`.
    made_by
        The command and what it ran with.
    """
    lines = [
        "# Table 4 of the paper: reconstruction by cell type",
        "",
        f"Made by {made_by}.",
        "",
        "Test cells alone: mean ± standard deviation over the splits "
        f"({table['split'].nunique()}). jaccard: of the fifth of the genes that vary most, true "
        "and rebuilt; spearman: of the genes' variances; l1, l2: mean distance of a cell to its "
        "reconstruction, over all genes. The first four on the paper's scale: one mean and "
        "standard deviation for the whole matrix. With z on z-scores: a mean and standard "
        "deviation a gene, so that over all cells all genes vary alike. With count on raw counts, "
        "where the paper measured a sample of scVI, but not MarkerMap. "
        f"The published numbers are of {PUBLISHED}: other cells and genes.",
        "",
    ]
    table = pd.concat([table, published()], ignore_index=True)
    lines += ["## Over all test cells, whatever their type", ""]
    lines += rows_of(table[table["cell_type"] == ALL_CELLS], "dataset")
    for name in table["dataset"].unique():
        lines += ["", f"## {name} by cell type", ""]
        lines += rows_of(table[table["dataset"] == name], "cell_type")
    return "\n".join(lines) + "\n"


def rows_of(part: pd.DataFrame, key: str) -> list[str]:
    """A Markdown table: a row a ``key`` and method, a column a scale and measure."""
    header = [key.replace("_", " "), "cells", "method", "sees", "epochs", *COLUMNS.values()]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for own in part[key].unique():
        rows = part[part[key] == own]
        for (method, sees), group in rows.groupby(["method", "sees"], sort=False):
            texts = [own, whole_mean(group["n_cells"]), method, sees, whole_mean(group["epochs"])]
            values = group.groupby(["scale", "measure"])["value"]
            known = dict(list(values))
            texts += [mean_and_spread(known.get(column)) for column in COLUMNS]
            lines.append("| " + " | ".join(texts) + " |")
    return lines


def whole_mean(values: pd.Series) -> str:
    """Mean of what is known, as an integer; empty where nothing is."""
    return f"{values.mean():.0f}" if values.notna().any() else ""


def mean_and_spread(values: pd.Series | None) -> str:
    """Of what is known; empty where nothing is."""
    known = np.array([]) if values is None else values.dropna().to_numpy(dtype=np.float64)
    if not len(known):
        return ""
    digits = 3 if np.abs(known).max() <= 1 else 1
    spread = f" ± {known.std():.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():.{digits}f}{spread}"
