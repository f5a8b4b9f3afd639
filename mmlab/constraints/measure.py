"""What the panel of a replicate has to hold, measured on its training cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmlab.constraints.check import forbidden_genes, shortage_problems
from mmlab.constraints.describe import list_names
from mmlab.constraints.solver import Indices, PanelRules, solve_panel
from mmlab.datasets.cache.mapped_counts import take_cells
from mmlab.datasets.cells import Cells
from mmlab.datasets.gene_filters import sums_by_type
from mmlab.errors import UserError
from mmlab.preprocessing.label_noise import replicate_labels
from mmlab.preprocessing.normalization import log_normalize
from mmlab.preprocessing.recipes import replicate_layers
from mmlab.preprocessing.splits import replicate_split
from mmlab.spec.constraints import ConstrainedSpec, Constraints
from mmlab.spec.trial import TrialSpec

#: What a marker's mean log1p value in its type is above that in all other cells, at least.
MARKER_LIFT = math.log(2)
_CELLS_AT_ONCE = 4096


@dataclass(frozen=True)
class GeneMeasurements:
    """What constraints read of training cells.

    Attributes
    ----------
    mean_counts
        Raw counts a cell of each gene, shape (n_genes,).
    marked
        The type that each gene marks, -1 for none; see :func:`marked_types`.
    """

    mean_counts: NDArray[np.float64]
    marked: Indices


def measure_genes(
    counts: sp.csr_matrix, train: Indices, y: NDArray[np.int64], n_types: int
) -> GeneMeasurements:
    """What constraints read of training cells.

    Parameters
    ----------
    counts
        Raw counts of all cells, CSR of shape (n_cells, n_genes); mapped ones are read in parts.
    train
        Indices of the training cells.
    y
        Class index of each of all cells, as the method gets it.
    """
    totals, sums = np.zeros(counts.shape[1]), np.zeros((n_types, counts.shape[1]))
    for start in range(0, len(train), _CELLS_AT_ONCE):
        own = train[start : start + _CELLS_AT_ONCE]
        block = take_cells(counts, own)
        totals += block.sum(axis=0, dtype=np.float64).A1
        sums += sums_by_type(log_normalize(block, "total"), y[own], n_types)
    sizes = np.bincount(y[train], minlength=n_types)
    return GeneMeasurements(totals / len(train), marked_types(sums, sizes))


def marked_types(sums: NDArray[np.float64], sizes: NDArray[np.int64]) -> Indices:
    """The type that each gene marks, -1 for none; int64 of shape (n_genes,).

    A gene marks the type in which its mean is highest, if that is at least log(2) above its mean
    over all other cells: one type against the rest, with a fold change of two, as is usual.

    Parameters
    ----------
    sums
        Over the cells of each type, of log1p of counts scaled to 10,000 a cell, (n_types, n_genes).
    sizes
        Cells of each type.
    """
    means = sums / np.maximum(sizes, 1)[:, None]
    others = (sums.sum(axis=0) - sums) / np.maximum(sizes.sum() - sizes, 1)[:, None]
    highest = means.argmax(axis=0)
    genes = np.arange(sums.shape[1])
    lift = means[highest, genes] - others[highest, genes]
    return np.where(lift >= MARKER_LIFT, highest, -1).astype(np.int64)


@dataclass(frozen=True)
class PanelConstraints:
    """What the panel of a replicate holds, in indices of genes.

    ``exclude`` has every gene that no panel may hold: excluded by name, by the weight 0, or by its
    mean count. ``rules`` is what else there is; None for nothing.
    """

    include: list[int]
    exclude: list[int]
    rules: PanelRules | None


def needs_cells(constraints: Constraints) -> bool:
    """Whether they depend on the training cells: :func:`resolve_constraints` then needs their measured."""
    return constraints.max_mean_counts is not None or needs_labels(constraints)


def needs_labels(constraints: Constraints) -> bool:
    """Whether they depend on the labels of the training cells."""
    return constraints.min_per_type is not None


def resolve_constraints(
    spec: TrialSpec, cells: Cells, measured: GeneMeasurements | None
) -> PanelConstraints:
    """What the panel of a replicate holds; names and contradictions have been checked.

    Parameters
    ----------
    measured
        Of its training cells, from :func:`measure_genes`; None where :func:`needs_cells` says no.

    Raises
    ------
    UserError
        No panel can hold it on these cells; every reason is named.
    """
    asked = spec.constraints
    position = {gene: index for index, gene in enumerate(cells.genes.tolist())}
    include = [position[name] for name in spec.include]
    exclude = [position[name] for name in dict.fromkeys(spec.exclude)]
    exclude += sorted(position[name] for name in forbidden_genes(spec) - set(spec.exclude))
    problems: list[str] = []
    if measured is not None and asked.max_mean_counts is not None:
        means, most = measured.mean_counts, asked.max_mean_counts
        exclude += np.setdiff1d(np.flatnonzero(means > most), exclude).tolist()
        problems += _crowding(spec, cells, means, most, exclude)
    rules = _rules(asked, cells)
    if rules is not None and measured is not None and asked.min_per_type is not None:
        marks = measured.marked == np.arange(len(cells.classes))[:, None]
        rules = replace(rules, marks=marks, min_per_type=asked.min_per_type)
    if rules is not None:
        free = np.setdiff1d(np.arange(len(cells.genes)), [*include, *exclude])
        included = _array(include)
        problems += _type_problems(rules, np.concatenate([included, free]), cells)
        if (
            not problems
            and solve_panel(rules, free, spec.n_markers - len(included), included) is None
        ):
            problems.append(f"no panel of {spec.n_markers} genes holds all constraints together")
    if problems:
        raise UserError("; ".join(problems) + ".")
    return PanelConstraints(include, exclude, rules)


def _rules(asked: Constraints, cells: Cells) -> PanelRules | None:
    """Groups and weights in indices of genes; None where nothing but lists of genes is asked."""
    if not (asked.groups or asked.weights or needs_labels(asked)):
        return None
    rules, genes = PanelRules.none(len(cells.genes)), cells.genes.tolist()
    if asked.groups:
        number = {name: i for i, name in enumerate(dict.fromkeys(asked.groups.values()))}
        own = [number[asked.groups[gene]] if gene in asked.groups else -1 for gene in genes]
        rules = replace(rules, groups=_array(own), max_per_group=asked.max_per_group or 0)
    # What has no weight is among no genes to choose from.
    weights = np.array([asked.weights.get(gene, 1.0) or 1.0 for gene in genes])
    return replace(rules, weights=weights)


def consensus_constraints(
    spec: TrialSpec | ConstrainedSpec,
    cells: Cells,
    panels: Sequence[Indices],
    marked: Sequence[Sequence[int] | Indices | None],
) -> PanelConstraints:
    """What one panel for several replicates holds, if its genes are from their panels.

    A gene counts as a marker of a type if it was one in a replicate that chose it. So the panel
    of each replicate holds these rules, and there always is one.

    Parameters
    ----------
    panels
        Of the replicates.
    marked
        The type that each gene of a panel marked in its replicate, -1 for none; not read without
        ``min_per_type``.
    """
    rules, least = _rules(spec.constraints, cells), spec.constraints.min_per_type
    if rules is None:
        return PanelConstraints([], [], None)
    # The panels have been weighted.
    rules = replace(rules, weights=np.ones(len(cells.genes)))
    if least is not None:
        marks = np.zeros((len(cells.classes), len(cells.genes)), dtype=bool)
        for panel, types in zip(panels, marked, strict=True):
            own = np.asarray(types, dtype=np.int64)
            marks[own[own >= 0], np.asarray(panel)[own >= 0]] = True
        rules = replace(rules, marks=marks, min_per_type=least)
    position = {gene: index for index, gene in enumerate(cells.genes.tolist())}
    return PanelConstraints([position[name] for name in spec.include], [], rules)


def _crowding(
    spec: TrialSpec, cells: Cells, mean_counts: NDArray[np.float64], most: float, exclude: list[int]
) -> list[str]:
    """Included genes above the largest mean count, and too few genes below it."""
    means = dict(zip(cells.genes.tolist(), mean_counts.tolist(), strict=True))
    above = [f"{name} ({means[name]:.3g})" for name in spec.include if means[name] > most]
    problems = []
    if above:
        problems.append(
            f"{list_names(above)}: included, but with more than max_mean_counts {most:g} counts a cell"
        )
    left = set(np.delete(cells.genes, exclude).tolist())
    return problems + shortage_problems(spec, left, f"max_mean_counts {most:g}")


def _type_problems(rules: PanelRules, genes: Indices, cells: Cells) -> list[str]:
    """Types with too few genes that mark them, in all or within the limits of the groups."""
    least = rules.min_per_type
    marks = rules.marks[:, genes]
    found = marks.sum(axis=1)
    few = [f"{cells.classes[t]!r} {n}" for t, n in enumerate(found) if n < least]
    if few:
        return [f"min_per_type {least}: fewer genes mark these types: {', '.join(few)}"]
    groups = rules.groups[genes]
    usable = [
        np.minimum(np.bincount(groups[own] + 1)[1:], rules.max_per_group).sum()
        + (own & (groups < 0)).sum()
        for own in marks
    ]
    few = [f"{cells.classes[t]!r} {n}" for t, n in enumerate(usable) if n < least]
    if not few:
        return []
    return [
        f"min_per_type {least}: with max_per_group {rules.max_per_group} a panel can have fewer "
        f"genes that mark these types: {', '.join(few)}"
    ]


def _array(indices: Sequence[int]) -> Indices:
    return np.array(indices, dtype=np.int64)


def measure_constraints(spec: TrialSpec, cells: Cells, index: int) -> PanelConstraints:
    """What the panel of a replicate has to hold.

    Raises
    ------
    UserError
        Its training cells do not allow it.
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
