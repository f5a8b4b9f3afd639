"""UMAPs of the panels of a comparison, one figure per method (figure 3 A and B of the paper)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from mmlab import figures
from mmlab.datasets.cells import Cells
from mmlab.figures.embedding import sample_cells, umap_coordinates
from mmlab.preprocessing.expression import ZScores, to_dense
from mmlab.spec.comparison import ComparisonSpec


def panel_umaps(
    spec: ComparisonSpec, rows: pd.DataFrame, cells: Cells, zscore: ZScores
) -> dict[str, Figure]:
    """Draw the UMAPs of the panel of the first replicate of each method at every setting.

    Parameters
    ----------
    spec
        The comparison.
    rows
        One row per finished replicate, sorted: columns method, setting and panel.
    cells
        The cells that the panels were chosen on; they are coloured by type.
    zscore
        z-scores of all cells, shape (n_cells, n_genes).

    Returns
    -------
    One figure per method with finished replicates, by the method's title.
    """
    embedded = sample_cells(len(zscore), spec.seed)
    expression = to_dense(zscore[embedded])
    drawn: dict[str, Figure] = {}
    for title, replicates in rows.groupby("method", sort=False) if len(rows) else ():
        firsts = replicates.drop_duplicates("setting")
        maps = {
            str(setting): umap_coordinates(expression[:, list(panel)], spec.seed)
            for setting, panel in zip(firsts["setting"], firsts["panel"], strict=True)
        }
        heading = f"{title} on {cells.name}: UMAP computed from the panel's genes"
        drawn[str(title)] = figures.cell_maps(maps, cells.y[embedded], cells.classes, heading)
    return drawn
