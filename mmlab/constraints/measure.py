"""Panel constraints of a replicate as gene indices, measured on its training cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmlab.constraints.check import excluded_genes, marker_problems, mean_count_problems
from mmlab.constraints.gene_names import use_gene_names
from mmlab.constraints.solver import Indices, PanelRules, solve_panel
from mmlab.datasets.cache.mapped_counts import take_cells
from mmlab.datasets.cells import Cells
from mmlab.datasets.gene_filters import sums_by_type
from mmlab.errors import UserError, join_problems
from mmlab.preprocessing.label_noise import replicate_labels
from mmlab.preprocessing.normalization import log_normalize
from mmlab.preprocessing.recipes import replicate_layers
from mmlab.preprocessing.splits import replicate_split
from mmlab.spec.constraints import ConstrainedSpec, Constraints
from mmlab.spec.trial import TrialSpec

#: Minimum difference of the mean log1p expression of a marker gene, its type against all others.
MIN_LOG_FOLD_CHANGE = math.log(2)
_CELLS_PER_BLOCK = 4096


@dataclass(frozen=True)
class GeneMeasurements:
    """Properties of the genes on the training cells that the constraints depend on.

    Attributes
    ----------
    mean_counts
        Mean raw count of each gene per cell, shape (n_genes,).
    marked_types
        Type of which each gene is a marker, -1 for none; see :func:`marked_types`.
    """

    mean_counts: NDArray[np.float64]
    marked_types: Indices


def measure_genes(
    counts: sp.csr_matrix, train: Indices, y: NDArray[np.int64], n_types: int
) -> GeneMeasurements:
    """Return the mean count and the marked type of each gene on the training cells.

    Parameters
    ----------
    counts
        Raw counts of all cells, CSR of shape (n_cells, n_genes). The cells are read in blocks,
        so memory-mapped counts are never loaded at once.
    train
        Indices of the training cells.
    y
        Class index of each cell as the method gets it (with label noise), shape (n_cells,).
    """
    totals, sums = np.zeros(counts.shape[1]), np.zeros((n_types, counts.shape[1]))
    for start in range(0, len(train), _CELLS_PER_BLOCK):
        own = train[start : start + _CELLS_PER_BLOCK]
        block = take_cells(counts, own)
        totals += block.sum(axis=0, dtype=np.float64).A1
        sums += sums_by_type(log_normalize(block, "total"), y[own], n_types)
    sizes = np.bincount(y[train], minlength=n_types)
    return GeneMeasurements(totals / len(train), marked_types(sums, sizes))


def marked_types(sums: NDArray[np.float64], sizes: NDArray[np.int64]) -> Indices:
    """Return the type of which each gene is a marker, -1 for none; int64 of shape (n_genes,).

    A gene is a marker of the type in which its mean is highest, if this mean exceeds the mean
    over all other cells by at least log(2): one type against the rest, with the usual fold
    change of two.

    Parameters
    ----------
    sums
        Sums over the cells of each type of log1p values (counts scaled to 10,000 per cell),
        shape (n_types, n_genes).
    sizes
        Number of cells of each type, shape (n_types,).
    """
    means = sums / np.maximum(sizes, 1)[:, None]
    others = (sums.sum(axis=0) - sums) / np.maximum(sizes.sum() - sizes, 1)[:, None]
    highest = means.argmax(axis=0)
    genes = np.arange(sums.shape[1])
    log_fold_change = means[highest, genes] - others[highest, genes]
    return np.where(log_fold_change >= MIN_LOG_FOLD_CHANGE, highest, -1).astype(np.int64)


@dataclass(frozen=True)
class PanelConstraints:
    """Panel constraints of a replicate as gene indices.

    Attributes
    ----------
    include
        Genes that the panel includes.
    exclude
        Genes that the panel does not include: excluded by name, by the weight 0, or by their
        mean count.
    rules
        All other constraints; None if there are none.
    """

    include: list[int]
    exclude: list[int]
    rules: PanelRules | None


def needs_cells(constraints: Constraints) -> bool:
    """Return whether the constraints depend on the training cells.

    :func:`resolve_constraints` then requires the result of :func:`measure_genes`.
    """
    return constraints.max_mean_counts is not None or needs_labels(constraints)


def needs_labels(constraints: Constraints) -> bool:
    """Return whether the constraints depend on the labels of the training cells."""
    return constraints.min_per_type is not None


def measure_constraints(spec: TrialSpec, cells: Cells, index: int) -> PanelConstraints:
    """Return the panel constraints of a replicate, measured on its training cells.

    Raises
    ------
    UserError
        No panel satisfies the constraints on its training cells.
    """
    if not needs_cells(spec.constraints):
        return resolve_constraints(spec, cells, None)
    split, y = replicate_split(spec, cells, index), cells.y
    if needs_labels(spec.constraints) and spec.noise.level > 0:
        y = replicate_labels(
            spec, cells, split, replicate_layers(spec, cells, split)["zscore"], index
        )
    return resolve_constraints(
        spec, cells, measure_genes(cells.adata.X, split.train, y, len(cells.classes))
    )


def resolve_constraints(
    spec: TrialSpec, cells: Cells, measurements: GeneMeasurements | None
) -> PanelConstraints:
    """Return the panel constraints of a replicate as gene indices.

    Names and contradictions must have been checked by
    :func:`mmlab.constraints.check.constraint_problems`.

    Parameters
    ----------
    measurements
        Result of :func:`measure_genes` on the training cells of the replicate; None if
        :func:`needs_cells` is false.

    Raises
    ------
    UserError
        No panel satisfies the constraints on these cells; the message lists every reason.
    """
    constraints = spec.constraints
    position = {gene: index for index, gene in enumerate(cells.genes.tolist())}
    include = [position[name] for name in spec.include]
    exclude = [position[name] for name in dict.fromkeys(spec.exclude)]
    exclude += sorted(position[name] for name in excluded_genes(spec) - set(spec.exclude))
    problems: list[str] = []
    if measurements is not None and constraints.max_mean_counts is not None:
        means, limit = measurements.mean_counts, constraints.max_mean_counts
        exclude += np.setdiff1d(np.flatnonzero(means > limit), exclude).tolist()
        problems += mean_count_problems(spec, cells, means, limit, exclude)
    rules = _panel_rules(constraints, cells)
    if rules is not None and measurements is not None and constraints.min_per_type is not None:
        is_marker = measurements.marked_types == np.arange(len(cells.classes))[:, None]
        rules = replace(rules, is_marker=is_marker, min_per_type=constraints.min_per_type)
    if rules is not None:
        candidates = np.setdiff1d(np.arange(len(cells.genes)), [*include, *exclude])
        included = np.array(include, dtype=np.int64)
        problems += marker_problems(rules, np.concatenate([included, candidates]), cells)
        n_missing = spec.n_markers - len(included)
        if not problems and solve_panel(rules, candidates, n_missing, included) is None:
            problems.append(f"no panel of {spec.n_markers} genes satisfies all constraints")
    if problems:
        raise UserError(join_problems(problems))
    return PanelConstraints(include, exclude, rules)


def _panel_rules(constraints: Constraints, cells: Cells) -> PanelRules | None:
    """Return groups and weights as gene indices; None if only genes are included or excluded."""
    if not (constraints.groups or constraints.weights or needs_labels(constraints)):
        return None
    rules, genes = PanelRules.unconstrained(len(cells.genes)), cells.genes.tolist()
    groups = constraints.groups
    if groups:
        number = {name: i for i, name in enumerate(dict.fromkeys(groups.values()))}
        own = [number[groups[gene]] if gene in groups else -1 for gene in genes]
        rules = replace(
            rules,
            groups=np.array(own, dtype=np.int64),
            max_per_group=constraints.max_per_group or 0,
        )
    # Genes of weight 0 are excluded and never among the candidates: their value does not matter.
    weights = np.array([constraints.weights.get(gene, 1.0) or 1.0 for gene in genes])
    return replace(rules, weights=weights)


def consensus_constraints(
    spec: TrialSpec | ConstrainedSpec,
    cells: Cells,
    panels: Sequence[Indices],
    types: Sequence[Sequence[int] | Indices | None],
) -> PanelConstraints:
    """Return the constraints of a consensus panel, whose genes come from the panels of replicates.

    A gene counts as a marker of a type if it was a marker of this type in a replicate that
    selected it. The panel of each replicate therefore satisfies these constraints, so that a
    consensus panel always exists.

    Parameters
    ----------
    panels
        Panels of the replicates.
    types
        For each panel, the type of which each of its genes was a marker, -1 for none; not read
        without ``min_per_type``.
    """
    spec = use_gene_names(spec, cells)
    rules, min_per_type = _panel_rules(spec.constraints, cells), spec.constraints.min_per_type
    if rules is None:
        return PanelConstraints([], [], None)
    # The weights have already been applied in the panels of the replicates.
    rules = replace(rules, weights=np.ones(len(cells.genes)))
    if min_per_type is not None:
        is_marker = np.zeros((len(cells.classes), len(cells.genes)), dtype=bool)
        for panel, types_of_panel in zip(panels, types, strict=True):
            own = np.asarray(types_of_panel, dtype=np.int64)
            is_marker[own[own >= 0], np.asarray(panel)[own >= 0]] = True
        rules = replace(rules, is_marker=is_marker, min_per_type=min_per_type)
    position = {gene: index for index, gene in enumerate(cells.genes.tolist())}
    return PanelConstraints([position[name] for name in spec.include], [], rules)
