"""The panel of a report: its genes, where each is high, how stable it is, and how cells look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmlab.constraints.measure import PanelConstraints
from mmlab.datasets.cells import Cells
from mmlab.figures.panel_plots import MOST_DOTS, dot_plot, umaps
from mmlab.preprocessing.expression import Expression, ZScores
from mmlab.report.page import PageFigure, Section, Table
from mmlab.trial.result import borda_panel


def describe_panel(
    panels: Sequence[NDArray[np.int64]],
    cells: Cells,
    panel_constraints: PanelConstraints | None = None,
) -> pd.DataFrame:
    """The consensus of panels of one size, a row a gene, best first.

    Parameters
    ----------
    panels
        Gene indices, one panel a replicate.
    panel_constraints
        What the consensus holds.

    Returns
    -------
    Columns rank, gene, gene_index, score (Borda count, see
    :func:`mmlab.trial.result.consensus_panel`), stability (share of the replicates that chose it),
    highest_in (the type with the highest mean expression), mean_there, mean_elsewhere
    (log1p-normalised) and expressed_there (share of that type's cells with a count).
    """
    panel, scores = borda_panel(list(panels), len(cells.genes), len(panels[0]), panel_constraints)
    chosen = np.bincount(np.concatenate(panels), minlength=len(cells.genes)) / len(panels)
    values = Expression(cells.adata.X, "log1p", cells.normalization)[:, panel].toarray()
    means = np.stack([values[cells.y == c].mean(axis=0) for c in range(len(cells.classes))])
    highest = means.argmax(axis=0)
    there = [cells.y == c for c in highest]
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(panel) + 1),
            "gene": cells.genes[panel],
            "gene_index": panel,
            "score": scores[panel],
            "stability": chosen[panel],
            "highest_in": np.asarray(cells.classes)[highest],
            "mean_there": [values[own, i].mean() for i, own in enumerate(there)],
            "mean_elsewhere": [values[~own, i].mean() for i, own in enumerate(there)],
            "expressed_there": [(values[own, i] > 0).mean() for i, own in enumerate(there)],
        }
    )


def panel_section(
    table: pd.DataFrame, method: str, n_panels: int, cells: Cells, zscore: ZScores
) -> Section:
    """The section of a panel that :func:`describe_panel` has described."""
    genes = table["gene_index"].to_numpy(dtype=np.int64)
    several = f"the consensus of {n_panels} replicates" if n_panels > 1 else "a single replicate"
    rows = [
        [
            str(row["rank"]),
            str(row["gene"]),
            f"{row['score']:.3f}",
            f"{100 * row['stability']:.0f} %",
            str(row["highest_in"]),
            f"{row['mean_there']:.2f}",
            f"{row['mean_elsewhere']:.2f}",
            f"{100 * row['expressed_there']:.0f} %",
        ]
        for row in table.to_dict(orient="records")
    ]
    header = ["rank", "gene", "score", "chosen", "highest in", "mean there", "elsewhere", "cells"]
    return Section(
        "The panel",
        [
            f"The {len(table)} genes that {method} chose: {several}. Score: Borda count over the "
            "replicates, 1 for a gene that all rank first. Chosen: share of the replicates whose "
            "panel holds the gene. Means are log1p-normalised expression in the type where the "
            "gene is highest, and in all other cells; cells: the share of that type's cells with "
            "a count of it."
        ],
        [Table("Genes, best first", header, rows, n_texts=2)],
        [
            PageFigure(
                "panel_dot_plot",
                "Expression of the panel's genes by type: colour, mean log1p-normalised expression "
                "scaled gene by gene; size, share of the type's cells with a count.",
                dot_plot(genes[:MOST_DOTS], cells),
            ),
            PageFigure(
                "panel_umap",
                "UMAP of the cells by the panel's genes alone and by all genes, z-scores; coloured "
                "by type.",
                umaps(genes, cells, zscore),
            ),
        ],
    )
