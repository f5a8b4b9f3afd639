"""Panel section of a report: genes, their expression and stability, dot plot and UMAP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmlab.constraints.measure import PanelConstraints
from mmlab.datasets.cells import Cells
from mmlab.figures.panel_plots import MAX_DOT_PLOT_GENES, N_COMPONENTS, dot_plot, plot_umaps
from mmlab.preprocessing.expression import Expression, ZScores
from mmlab.report.page import PageFigure, Section, Table
from mmlab.trial.result import borda_panel


def describe_panel(
    panels: Sequence[NDArray[np.int64]],
    cells: Cells,
    panel_constraints: PanelConstraints | None = None,
) -> pd.DataFrame:
    """Return the consensus of panels of one size, one row per gene, the best gene first.

    Parameters
    ----------
    panels
        Gene indices, one panel per replicate, best first.
    panel_constraints
        Constraints that the consensus satisfies.

    Returns
    -------
    Columns:

    - rank (from 1), gene, gene_index
    - score: Borda count in [0, 1], see :func:`mmlab.trial.result.consensus_panel`
    - stability: share of the replicates whose panel includes the gene
    - highest_in: cell type with the highest mean expression
    - mean_there, mean_elsewhere: mean log1p-normalised expression in this type and in all other
      cells
    - expressed_there: share of this type's cells with a count above 0
    - gene_id: original name of the gene, if the cells name it otherwise
    """
    panel, scores = borda_panel(list(panels), len(cells.genes), len(panels[0]), panel_constraints)
    stability = np.bincount(np.concatenate(panels), minlength=len(cells.genes)) / len(panels)
    values = Expression(cells.adata.X, "log1p", cells.normalization)[:, panel].toarray()
    means = np.stack([values[cells.y == c].mean(axis=0) for c in range(len(cells.classes))])
    highest = means.argmax(axis=0)
    in_highest_type = [cells.y == c for c in highest]
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(panel) + 1),
            "gene": cells.genes[panel],
            "gene_index": panel,
            "score": scores[panel],
            "stability": stability[panel],
            "highest_in": np.asarray(cells.classes)[highest],
            "mean_there": [values[mask, i].mean() for i, mask in enumerate(in_highest_type)],
            "mean_elsewhere": [values[~mask, i].mean() for i, mask in enumerate(in_highest_type)],
            "expressed_there": [
                (values[mask, i] > 0).mean() for i, mask in enumerate(in_highest_type)
            ],
            **({} if cells.gene_ids is None else {"gene_id": cells.gene_ids[panel]}),
        }
    )


def panel_section(
    table: pd.DataFrame, method: str, n_panels: int, cells: Cells, zscore: ZScores
) -> Section:
    """Return the section on a panel.

    Parameters
    ----------
    table
        From :func:`describe_panel`.
    method, n_panels
        The method that selected the panel, and the number of replicates in the consensus.
    zscore
        z-scores of all cells, for the UMAP.
    """
    genes = table["gene_index"].to_numpy(dtype=np.int64)
    source = f"the consensus of {n_panels} replicates" if n_panels > 1 else "from one replicate"
    rows = [
        [
            str(row["rank"]),
            str(row["gene"]),
            str(row["highest_in"]),
            f"{row['score']:.3f}",
            f"{100 * row['stability']:.0f} %",
            f"{row['mean_there']:.2f}",
            f"{row['mean_elsewhere']:.2f}",
            f"{100 * row['expressed_there']:.0f} %",
        ]
        for row in table.to_dict(orient="records")
    ]
    limited = (
        f" Only the first {MAX_DOT_PLOT_GENES} genes are shown."
        if len(genes) > MAX_DOT_PLOT_GENES
        else ""
    )
    header = [
        *("rank", "gene", "highest in", "score", "stability"),
        *("mean in type", "mean elsewhere", "cells > 0"),
    ]
    return Section(
        "Panel",
        [
            f"The {len(table)} genes selected by {method}, {source}. Highest in: the cell "
            "type with the highest mean log1p-normalised expression of the gene; the last columns "
            "are the mean in this type, the mean in all other cells, and the share of this type's "
            "cells with a count above 0, over all cells of the dataset. Score: Borda count over "
            "the replicates; 1 for a gene that every replicate ranks first. Stability: share of "
            "the replicates whose panel includes the gene.",
        ],
        [Table("Genes of the panel, best first", header, rows, n_text_columns=3)],
        [
            PageFigure(
                "panel_dot_plot",
                "Expression of the panel's genes by cell type. Colour: mean log1p-normalised "
                "expression, scaled from 0 to 1 for each gene. Size: share of the type's cells "
                f"with a count above 0.{limited}",
                dot_plot(genes[:MAX_DOT_PLOT_GENES], cells),
            ),
            PageFigure(
                "panel_umap",
                "UMAP of the cells: left, of the z-scores of the panel's genes; right, of the "
                f"first {N_COMPONENTS} principal components of the z-scores of all genes. Colour: "
                "cell type.",
                plot_umaps(genes, cells, zscore),
            ),
        ],
    )
