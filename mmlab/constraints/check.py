"""What is asked of a panel: what contradicts itself or the data, and what it means for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mmlab.constraints.describe import MOST_NAMED, list_names
from mmlab.datasets.cells import Cells
from mmlab.spec.trial import TrialSpec


def constraint_problems(
    spec: TrialSpec, cells: Cells, *, takes_all_genes: bool = False
) -> list[str]:
    """What is wrong with the genes to include and exclude and with the constraints.

    A sentence each; what depends on the training cells is found by :func:`mmlab.constraints.measure.resolve_constraints`.

    Parameters
    ----------
    takes_all_genes
        Whether the method's panel is all genes, which no constraint can change.
    """
    asked, n_types = spec.constraints, len(cells.classes)
    problems = _name_problems(spec, cells)
    if takes_all_genes and asked:
        problems.append(f"{spec.selector} takes every gene: it holds no constraints but include")
    problems += _contradictions(spec)
    if asked.min_per_type is not None and asked.min_per_type * n_types > spec.n_markers:
        problems.append(
            f"min_per_type {asked.min_per_type} needs {asked.min_per_type * n_types} genes for "
            f"{n_types} types, because a gene marks one type at most; n_markers is {spec.n_markers}"
        )
    out = forbidden_genes(spec)
    what = "exclude" if not out - set(spec.exclude) else "exclude with weights of 0"
    return problems + shortage_problems(spec, set(cells.genes.tolist()) - out, what if out else "")


def _name_problems(spec: TrialSpec, cells: Cells) -> list[str]:
    """Genes that the data do not have, and genes named twice."""
    known = set(cells.genes.tolist())
    lists: dict[str, Iterable[str]] = {
        "include": spec.include,
        "exclude": spec.exclude,
        "groups": spec.constraints.groups,
        "weights": spec.constraints.weights,
    }
    problems = []
    for key, names in lists.items():
        missing = [name for name in names if name not in known]
        if missing:
            shown = ", ".join(repr(name) for name in missing[:MOST_NAMED])
            problems.append(f"{key}: {len(missing)} genes are not in {cells.name}: {shown}")
        twice = [name for name, times in Counter(iter(names)).items() if times > 1]
        if twice:
            problems.append(f"{key} names a gene twice: {list_names(twice)}")
    return problems


def _contradictions(spec: TrialSpec) -> list[str]:
    """Genes to include that may not be there, or not all of them."""
    asked, problems = spec.constraints, []
    both = sorted(set(spec.include) & set(spec.exclude))
    if both:
        problems.append(f"{list_names(both)}: both included and excluded")
    worthless = [name for name in spec.include if asked.weights.get(name) == 0]
    if worthless:
        problems.append(f"{list_names(worthless)}: included, but of weight 0")
    if len(spec.include) > spec.n_markers:
        problems.append(
            f"include names {len(spec.include)} genes, more than n_markers {spec.n_markers}"
        )
    sizes = Counter(asked.groups[name] for name in spec.include if name in asked.groups)
    most = asked.max_per_group or 0
    problems += [
        f"include names {size} genes of group {group!r}, more than max_per_group {most}"
        for group, size in sizes.items()
        if size > most
    ]
    return problems


def forbidden_genes(spec: TrialSpec) -> set[str]:
    """Names of the genes that no panel may hold, whatever the cells."""
    weightless = {name for name, weight in spec.constraints.weights.items() if weight == 0}
    return set(spec.exclude) | weightless


def shortage_problems(spec: TrialSpec, left: set[str], what: str) -> list[str]:
    """Too few genes for a panel: ``what`` leaves too few, or of these the groups' limits do."""
    asked, n_markers = spec.constraints, spec.n_markers
    if len(left) < n_markers:
        leaves = f"{what} leaves {len(left)} genes, fewer than n_markers {n_markers}"
        return [leaves] if what else []
    sizes = Counter(asked.groups[name] for name in left & asked.groups.keys())
    most = len(left) - sizes.total()
    most += sum(min(size, asked.max_per_group or 0) for size in sizes.values())
    if most >= n_markers:
        return []
    return [
        f"max_per_group {asked.max_per_group} lets a panel have {most} genes at most, fewer than "
        f"n_markers {n_markers}"
    ]
