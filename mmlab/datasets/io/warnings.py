"""What looks odd in cells that can be used, and is worth a look before a panel is chosen."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from mmlab.datasets.io.cell_source import CellSource
from mmlab.datasets.io.checks import Inspection
from mmlab.datasets.io.count_search import quote_names
from mmlab.datasets.io.matrix import Matrix
from mmlab.datasets.io.value_scan import ValueScan

#: Fewer cells of a class make its accuracy a matter of luck.
_FEW_CELLS = 10
#: A cell with a smaller share of the median cell's counts is hardly one, with more than the
#: multiple hardly a single one.
_POOR, _RICH = 1 / 20, 20
#: Counts of molecules of one gene in one cell hardly get there; counts of reads do.
_LARGE_COUNT = 50_000
#: Zeros of a dense matrix from which CSR is smaller by half.
_MOSTLY_ZEROS = 0.75
_MISSING = {"nan", "na", "n/a", "none", "null", "<na>"}
_ENSEMBL = re.compile(r"ENS[A-Z]{0,6}G\d{11}(\.\d+)?")
_SYMBOLS = re.compile(r"(gene_?)?(symbols?|names?|short_name)|feature_name", re.IGNORECASE)


def find_warnings(findings: Inspection, source: CellSource, label_key: str) -> list[str]:
    """What a user may want to know of the cells, a sentence each; nothing of it stops anybody."""
    oddities = [
        f"{passed.place.title} was passed over: {passed.problems[0]}"
        for passed in findings.passed_over
        if passed.place.title not in ("X", "raw")
    ]
    counts = findings.counts
    if counts is not None and counts.matrix is not None and counts.scan is not None:
        oddities += _of_values(counts.matrix, counts.scan, findings, counts.place.title)
        oddities += _of_fewer_genes(counts.place.title, findings, source)
    oddities += _of_genes(findings.genes, source.var_columns)
    if findings.labels is not None:
        oddities += _of_labels(findings.labels, f"obs[{label_key!r}]")
    return oddities


def _of_values(matrix: Matrix, scan: ValueScan, findings: Inspection, title: str) -> list[str]:
    oddities = []
    silent = np.flatnonzero(scan.per_gene == 0)
    if len(silent):
        oddities.append(
            f"{len(silent)} of {len(findings.genes)} genes have no count in any cell, first "
            f"{quote_names(findings.genes[silent])}"
        )
    oddities += _of_depths(scan.per_cell, findings.cells)
    if scan.largest > _LARGE_COUNT:
        oddities.append(
            f"the largest count is {scan.largest:.0f}: counts of molecules hardly get there; are "
            "these reads, or sums over cells?"
        )
    if scan.largest == 1:
        oddities.append(f"{title} holds nothing but 0 and 1: were the counts binarised?")
    zeros = 1 - scan.n_nonzero / max(matrix.shape[0] * matrix.shape[1], 1)
    if matrix.kind == "dense" and zeros > _MOSTLY_ZEROS:
        oddities.append(
            f"{title} is dense, but {zeros:.0%} of its values are 0: scipy.sparse.csr_matrix would "
            "make it smaller"
        )
    return oddities


def _of_depths(
    per_cell: np.ndarray[tuple[int], np.dtype[np.float64]], cells: pd.Index
) -> list[str]:
    """Cells with far less or far more counts than the median one."""
    median = float(np.median(per_cell))
    poor = np.flatnonzero((per_cell < _POOR * median) & (per_cell > 0))
    rich = np.flatnonzero(per_cell > _RICH * median)
    oddities = []
    for place, what in ((poor, "less than a twentieth of"), (rich, "more than twenty times")):
        if len(place):
            oddities.append(
                f"{len(place)} cells have {what} the counts of the median cell ({median:.0f}), "
                f"first {quote_names(cells[place[:1]])} with {per_cell[place[0]]:.0f}"
            )
    return oddities


def _of_fewer_genes(title: str, findings: Inspection, source: CellSource) -> list[str]:
    n_genes = len(findings.genes)
    n_raw = 0 if source.raw is None else len(source.raw.genes())
    if n_raw <= n_genes:
        return []
    return [
        f"{title} has {n_genes} genes, raw has {n_raw}: a cell's total counts are taken over the "
        f"{n_genes}, and no other gene can be chosen"
    ]


def _of_genes(genes: pd.Index, var_columns: list[str]) -> list[str]:
    oddities = []
    alike = _alike(genes, str.upper)
    if alike:
        oddities.append(
            f"{len(alike)} gene names differ from another one in upper and lower case alone, first "
            f"{quote_names(alike[0])}: are these two species?"
        )
    identifiers = sum(_ENSEMBL.fullmatch(str(gene)) is not None for gene in genes)
    symbols = [name for name in var_columns if _SYMBOLS.fullmatch(name)]
    if symbols and identifiers > len(genes) / 2:
        oddities.append(
            f"genes are named by Ensembl identifiers, and so will panels be; var[{symbols[0]!r}] "
            "seems to hold their symbols"
        )
    return oddities


def _of_labels(labels: pd.Series, where: str) -> list[str]:
    sizes = labels[labels.str.strip() != ""].value_counts()
    names = [str(name) for name in sizes.index]
    oddities = []
    few = sizes[(sizes < _FEW_CELLS)]
    if len(few):
        listed = ", ".join(f"{quote_names([name])} {size}" for name, size in few[:5].items())
        oddities.append(
            f"{len(few)} classes of {where} have fewer than {_FEW_CELLS} cells, one or two of them "
            f"test cells: {listed}" + (", ..." if len(few) > 5 else "")
        )
    if len(sizes) > len(labels) / _FEW_CELLS:
        oddities.append(
            f"{where} has {len(sizes)} classes for {len(labels)} cells: is it the type?"
        )
    if missing := [name for name in names if name.strip().lower() in _MISSING]:
        oddities.append(
            f"{sizes[missing].sum()} cells of {where} have the label {quote_names(missing)}: it is taken "
            "for a class, not for a missing label"
        )
    if spaced := [name for name in names if name != name.strip()]:
        oddities.append(
            f"{len(spaced)} class names begin or end with a space, first {quote_names(spaced)}"
        )
    if alike := _alike(names, lambda name: " ".join(re.split(r"[\s_-]+", name.strip().lower()))):
        oddities.append(
            f"{len(alike)} class names differ from another one in case, spaces or dashes alone, "
            f"first {quote_names(alike[0])}: are they the same class?"
        )
    return oddities


def _alike(names: pd.Index | list[str], key: Callable[[str], str]) -> list[list[str]]:
    """Names that become the same by ``key``, in groups of two or more."""
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        groups.setdefault(key(str(name)), {})[str(name)] = None
    return [list(group) for group in groups.values() if len(group) > 1]
