"""Checks of the new cells that a model is applied to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mmlab.datasets.io.cell_source import from_anndata
from mmlab.datasets.io.count_search import inspect_location
from mmlab.errors import UserError, join_problems

if TYPE_CHECKING:
    import anndata as ad

#: Maximum number of missing genes that an error lists.
_MAX_LISTED = 10


def refuse_counts(values: NDArray[np.float32]) -> None:
    """Raise ``UserError`` if all values are integers: log1p of a count is an integer only for 0."""
    if values.any() and np.isfinite(values).all() and (values == np.rint(values)).all():
        raise UserError(
            f"the data frame looks like counts (integers up to {values.max():.0f}); "
            "pass log1p-normalised expression, or AnnData with the counts of all genes."
        )


def require_counts(adata: ad.AnnData, round_counts: bool) -> sp.csr_matrix:
    """Return the raw counts in ``X``; raise ``UserError`` if these are not counts."""
    source = from_anndata(adata)
    location = replace(source.X, title="X of the AnnData")
    inspected = inspect_location(location, source, round_counts=round_counts)
    if inspected.problems or inspected.matrix is None:
        raise UserError(join_problems(inspected.problems))
    return inspected.matrix.load()


def require_genes(genes: Iterable[str], present: pd.Index, where: str) -> None:
    """Raise ``UserError`` if gene names are not unique or genes are missing."""
    known = set(map(str, present))
    if len(known) < len(present):
        raise UserError(f"{where} has duplicate gene names; make them unique first.")
    missing = [gene for gene in genes if gene not in known]
    if missing:
        listed = ", ".join(missing[:_MAX_LISTED]) + (", ..." if len(missing) > _MAX_LISTED else "")
        raise UserError(f"{where} lacks {len(missing)} genes that the model needs: {listed}.")
