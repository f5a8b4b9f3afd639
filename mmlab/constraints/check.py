"""Check panel constraints against each other and against the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from mmlab.constraints.describe import MAX_NAMES, list_names
from mmlab.constraints.gene_names import GeneHints
from mmlab.constraints.solver import Indices, PanelRules
from mmlab.datasets.cells import Cells
from mmlab.spec.trial import TrialSpec


def constraint_problems(
    spec: TrialSpec, cells: Cells, *, takes_all_genes: bool = False
) -> list[str]:
    """Return a message for each contradiction among the constraints or with the data.

    Only names and numbers of genes and types are checked. What depends on the training cells is
    checked by :func:`mmlab.constraints.measure.resolve_constraints`.

    Parameters
    ----------
    takes_all_genes
        Whether the panel of the method is all genes, which no constraint can change.
    """
    constraints, n_types = spec.constraints, len(cells.classes)
    problems = _name_problems(spec, cells)
    if takes_all_genes and constraints:
        problems.append(
            f"{spec.selector} selects all genes; the only constraint that it supports is include"
        )
    problems += _contradictions(spec)
    per_type = constraints.min_per_type
    if per_type is not None and per_type * n_types > spec.n_markers:
        problems.append(
            f"min_per_type {per_type} needs {per_type * n_types} genes for {n_types} types, "
            f"because a gene is a marker of at most one type; n_markers is {spec.n_markers}"
        )
    excluded = excluded_genes(spec)
    cause = "exclude" if not excluded - set(spec.exclude) else "exclude with weights of 0"
    allowed = set(cells.genes.tolist()) - excluded
    return problems + shortage_problems(spec, allowed, cause if excluded else "")


def _name_problems(spec: TrialSpec, cells: Cells) -> list[str]:
    """Return messages about unknown and duplicate genes."""
    known = set(cells.genes.tolist())
    lists: dict[str, Collection[str]] = {
        "include": spec.include,
        "exclude": spec.exclude,
        "groups": spec.constraints.groups,
        "weights": spec.constraints.weights,
    }
    problems, hints = [], None
    for key, names in lists.items():
        unknown = [name for name in names if name not in known]
        if unknown:
            hints = hints or GeneHints(cells)
            listed = ", ".join(hints.quote(name) for name in unknown[:MAX_NAMES])
            problems.append(
                f"{key}: {len(unknown)} of {len(names)} genes are not in {cells.name}: {listed}"
            )
        duplicates = [name for name, times in Counter(iter(names)).items() if times > 1]
        if duplicates:
            problems.append(f"{key} contains duplicate genes: {list_names(duplicates)}")
    return problems


def _contradictions(spec: TrialSpec) -> list[str]:
    """Return messages about included genes that other constraints do not allow."""
    constraints, problems = spec.constraints, []
    both = sorted(set(spec.include) & set(spec.exclude))
    if both:
        problems.append(f"{list_names(both)}: both included and excluded")
    weightless = [name for name in spec.include if constraints.weights.get(name) == 0]
    if weightless:
        problems.append(f"{list_names(weightless)}: included, but with weight 0")
    if len(spec.include) > spec.n_markers:
        problems.append(
            f"include lists {len(spec.include)} genes, more than n_markers {spec.n_markers}"
        )
    groups = constraints.groups
    sizes = Counter(groups[name] for name in spec.include if name in groups)
    max_per_group = constraints.max_per_group or 0
    problems += [
        f"include lists {size} genes of group {group!r}, more than max_per_group {max_per_group}"
        for group, size in sizes.items()
        if size > max_per_group
    ]
    return problems


def excluded_genes(spec: TrialSpec) -> set[str]:
    """Return the names of the genes that are excluded by name or by the weight 0."""
    weightless = {name for name, weight in spec.constraints.weights.items() if weight == 0}
    return set(spec.exclude) | weightless


def shortage_problems(spec: TrialSpec, allowed: set[str], cause: str) -> list[str]:
    """Return a message if there are too few genes for a panel.

    Parameters
    ----------
    allowed
        Names of the genes that are not excluded.
    cause
        Constraint that excludes the other genes; "" if there are none.
    """
    constraints, n_markers = spec.constraints, spec.n_markers
    if len(allowed) < n_markers:
        message = f"{cause} leaves {len(allowed)} genes, fewer than n_markers {n_markers}"
        return [message] if cause else []
    sizes = Counter(constraints.groups[name] for name in allowed & constraints.groups.keys())
    largest = len(allowed) - sizes.total()
    largest += sum(min(size, constraints.max_per_group or 0) for size in sizes.values())
    if largest >= n_markers:
        return []
    return [
        f"max_per_group {constraints.max_per_group} allows panels of at most {largest} genes, "
        f"fewer than n_markers {n_markers}"
    ]


def mean_count_problems(
    spec: TrialSpec,
    cells: Cells,
    mean_counts: NDArray[np.float64],
    limit: float,
    exclude: list[int],
) -> list[str]:
    """Return messages about included genes above the limit, and too few genes below it.

    Parameters
    ----------
    mean_counts
        Mean raw count of each gene over the training cells, shape (n_genes,).
    limit
        Value of ``max_mean_counts``.
    exclude
        Indices of all excluded genes, those above the limit among them.
    """
    means = dict(zip(cells.genes.tolist(), mean_counts.tolist(), strict=True))
    above = [f"{name} ({means[name]:.3g})" for name in spec.include if means[name] > limit]
    problems = []
    if above:
        problems.append(
            f"{list_names(above)}: included, but with a mean count above max_mean_counts {limit:g}"
        )
    allowed = set(np.delete(cells.genes, exclude).tolist())
    return problems + shortage_problems(spec, allowed, f"max_mean_counts {limit:g}")


def marker_problems(rules: PanelRules, genes: Indices, cells: Cells) -> list[str]:
    """Return a message about types with too few marker genes, in total or within group limits.

    Parameters
    ----------
    genes
        Indices of the genes that a panel may include.
    """
    minimum = rules.min_per_type
    is_marker = rules.is_marker[:, genes]
    few = _types_below(minimum, is_marker.sum(axis=1), cells)
    if few:
        return [f"min_per_type {minimum}: too few marker genes of {few}"]
    groups = rules.groups[genes]
    usable = [
        np.minimum(np.bincount(groups[own] + 1)[1:], rules.max_per_group).sum()
        + (own & (groups < 0)).sum()
        for own in is_marker
    ]
    few = _types_below(minimum, usable, cells)
    if not few:
        return []
    return [
        f"min_per_type {minimum}: max_per_group {rules.max_per_group} leaves too few marker "
        f"genes of {few}"
    ]


def _types_below(minimum: int, sizes: Collection[int] | Indices, cells: Cells) -> str:
    """Return the names of the types with fewer marker genes than the minimum, for a message."""
    return ", ".join(f"{cells.classes[t]!r} ({n})" for t, n in enumerate(sizes) if n < minimum)
