"""Warnings about unusual properties of cells that can be used."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from mmlab.datasets.io.cell_source import CellSource
from mmlab.datasets.io.checks import Inspection
from mmlab.datasets.io.count_search import quote_names
from mmlab.datasets.io.labels import MISSING_LABELS
from mmlab.datasets.io.matrix import Matrix
from mmlab.datasets.io.value_scan import ValueScan

#: The accuracy of a class with fewer cells is mostly chance.
_FEW_CELLS = 10
#: Multiples of the median total counts: a cell below the first is probably an empty droplet, one
#: above the second a doublet or multiplet.
_LOW_TOTAL, _HIGH_TOTAL = 1 / 20, 20
#: UMI counts of a gene in a cell hardly ever reach this; read counts do.
_LARGE_COUNT = 50_000
#: Share of zeros in a dense matrix above which CSR takes less than half of its memory.
_MOSTLY_ZEROS = 0.75
#: Share of the genes that have the name of another one, except for case, if two species are mixed.
_TWO_SPECIES = 0.1


def find_warnings(inspection: Inspection, source: CellSource, label_key: str) -> list[str]:
    """Return the warnings about cells, one sentence each; none of them prevents their use."""
    warnings = [
        f"{rejected.location.title} is not used: {rejected.problems[0]}"
        for rejected in inspection.rejected
        if rejected.location.title not in ("X", "raw")
    ]
    counts = inspection.counts
    if counts is not None and counts.matrix is not None and counts.scan is not None:
        title = counts.location.title
        warnings += _value_warnings(counts.matrix, counts.scan, inspection, title)
        warnings += _raw_warnings(title, inspection, source)
    warnings += _gene_warnings(inspection.gene_names)
    warnings += inspection.notes
    if inspection.labels is not None:
        warnings += _label_warnings(inspection.labels[inspection.kept], f"obs[{label_key!r}]")
    return warnings


def _value_warnings(
    matrix: Matrix, scan: ValueScan, inspection: Inspection, title: str
) -> list[str]:
    warnings = []
    silent = np.flatnonzero(scan.n_cells_by_gene == 0)
    if len(silent):
        warnings.append(
            f"{len(silent)} of {len(inspection.gene_names)} genes have no counts in any cell, "
            f"first {quote_names(inspection.gene_names[silent])}"
        )
    warnings += _total_warnings(scan.cell_totals, inspection.cell_names)
    if scan.largest > _LARGE_COUNT:
        warnings.append(
            f"the largest count is {scan.largest:.0f}, too large for a UMI count: are these read "
            "counts, or sums over cells?"
        )
    if scan.largest == 1:
        warnings.append(f"{title} has only the values 0 and 1: were the counts binarised?")
    zeros = 1 - scan.n_nonzero / max(matrix.shape[0] * matrix.shape[1], 1)
    if matrix.kind == "dense" and zeros > _MOSTLY_ZEROS:
        warnings.append(
            f"{title} is dense, but {zeros:.0%} of its values are 0: as scipy.sparse.csr_matrix "
            "it would be smaller"
        )
    return warnings


def _total_warnings(
    cell_totals: np.ndarray[tuple[int], np.dtype[np.float64]], cell_names: pd.Index
) -> list[str]:
    """Return warnings about cells with far fewer or far more counts than the median cell."""
    median = float(np.median(cell_totals))
    low = np.flatnonzero((cell_totals < _LOW_TOTAL * median) & (cell_totals > 0))
    high = np.flatnonzero(cell_totals > _HIGH_TOTAL * median)
    warnings = []
    for cells, relation in ((low, "less than a twentieth of"), (high, "more than twenty times")):
        if len(cells):
            warnings.append(
                f"{len(cells)} cells have {relation} the counts of the median cell "
                f"({median:.0f}), first {quote_names(cell_names[cells[:1]])} with "
                f"{cell_totals[cells[0]]:.0f}"
            )
    return warnings


def _raw_warnings(title: str, inspection: Inspection, source: CellSource) -> list[str]:
    """Return a warning if ``raw`` has more genes than the location of the counts."""
    n_genes = len(inspection.gene_names)
    n_raw = 0 if source.raw is None else len(source.raw.read_gene_names())
    if n_raw <= n_genes:
        return []
    return [
        f"{title} has {n_genes} genes, raw has {n_raw}: only the {n_genes} genes can be chosen, "
        "and total counts per cell are sums over them"
    ]


def _gene_warnings(gene_names: pd.Index) -> list[str]:
    warnings = []
    similar = _group_similar(gene_names, str.upper)
    mixed = sum(map(len, similar)) >= _TWO_SPECIES * len(gene_names)
    if similar:
        warnings.append(
            f"{len(similar)} gene names differ from another one only in case, first "
            f"{quote_names(similar[0])}: "
            + ("are these genes of two species?" if mixed else "they are different genes here")
        )
    return warnings


def _label_warnings(labels: pd.Series, where: str) -> list[str]:
    sizes = labels[labels.str.strip() != ""].value_counts()
    names = [str(name) for name in sizes.index]
    warnings = []
    few = sizes[(sizes < _FEW_CELLS)]
    if len(few):
        listed = ", ".join(f"{quote_names([name])} {size}" for name, size in few[:5].items())
        warnings.append(
            f"cell types of {where} with fewer than {_FEW_CELLS} cells, of which one or two are "
            f"test cells: {listed}" + (", ..." if len(few) > 5 else "")
        )
    if missing := [name for name in names if name.strip().lower() in MISSING_LABELS]:
        warnings.append(
            f"{sizes[missing].sum()} cells of {where} have the label {quote_names(missing)}: it "
            "is treated as a type, not as a missing label; --drop-unlabelled leaves it out"
        )
    if spaced := [name for name in names if name != name.strip()]:
        warnings.append(
            f"names of types that begin or end with a space: {len(spaced)}, first "
            f"{quote_names(spaced)}"
        )
    if similar := _group_similar(names, _normalize_label):
        warnings.append(
            f"names of types that differ from another one only in case, spaces or dashes: "
            f"{len(similar)}, first {quote_names(similar[0])}: are they the same type?"
        )
    return warnings


def _normalize_label(name: str) -> str:
    """Return a label in lower case, with single spaces for spaces, dashes and underscores."""
    return " ".join(re.split(r"[\s_-]+", name.strip().lower()))


def _group_similar(names: pd.Index | list[str], key: Callable[[str], str]) -> list[list[str]]:
    """Return the groups of two or more different names with the same ``key(name)``."""
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        groups.setdefault(key(str(name)), {})[str(name)] = None
    return [list(group) for group in groups.values() if len(group) > 1]
