"""What is asked of a panel: what contradicts itself or the data, and what it means for people."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from mmlab.datasets.cells import Cells
from mmlab.selectors import SELECTORS
from mmlab.selectors.controls import AllGenes
from mmlab.spec.trial import PanelSpec, TrialSpec

#: Names that a sentence lists.
_NAMED = 5


def constraint_problems(spec: TrialSpec, cells: Cells) -> list[str]:
    """What is wrong with the genes to include and exclude and with the constraints.

    A sentence each; what depends on the training cells is found by :func:`mmlab.constraints.measure.hold`.
    """
    asked, n_types = spec.constraints, len(cells.classes)
    problems = _name_problems(spec, cells)
    if SELECTORS.get(spec.selector) is AllGenes and asked:
        problems.append("all_genes takes every gene: it holds no constraints but include")
    problems += _contradictions(spec)
    if asked.min_per_type is not None and asked.min_per_type * n_types > spec.n_markers:
        problems.append(
            f"min_per_type {asked.min_per_type} needs {asked.min_per_type * n_types} genes for "
            f"{n_types} types, because a gene marks one type at most; n_markers is {spec.n_markers}"
        )
    out = forbidden(spec)
    what = "exclude" if not out - set(spec.exclude) else "exclude with weights of 0"
    return problems + shortages(spec, set(cells.genes.tolist()) - out, what if out else "")


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
            shown = ", ".join(repr(name) for name in missing[:_NAMED])
            problems.append(f"{key}: {len(missing)} genes are not in {cells.name}: {shown}")
        twice = [name for name, times in Counter(iter(names)).items() if times > 1]
        if twice:
            problems.append(f"{key} names a gene twice: {some(twice)}")
    return problems


def _contradictions(spec: TrialSpec) -> list[str]:
    """Genes to include that may not be there, or not all of them."""
    asked, problems = spec.constraints, []
    both = sorted(set(spec.include) & set(spec.exclude))
    if both:
        problems.append(f"{some(both)}: both included and excluded")
    worthless = [name for name in spec.include if asked.weights.get(name) == 0]
    if worthless:
        problems.append(f"{some(worthless)}: included, but of weight 0")
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


def forbidden(spec: TrialSpec) -> set[str]:
    """Names of the genes that no panel may hold, whatever the cells."""
    weightless = {name for name, weight in spec.constraints.weights.items() if weight == 0}
    return set(spec.exclude) | weightless


def shortages(spec: TrialSpec, left: set[str], what: str) -> list[str]:
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


def describe(spec: TrialSpec | PanelSpec, shown: Callable[[str], str] = str) -> list[str]:
    """What every panel holds, a sentence each, for people; empty where nothing is asked.

    ``shown`` gives the name of a gene as it stands there: :func:`in_markdown` for that.
    """
    asked, text = spec.constraints, []
    if spec.include:
        text.append(f"Every panel holds {some(list(map(shown, spec.include)), 20)}.")
    if spec.exclude:
        text.append(f"No panel holds {some(list(map(shown, spec.exclude)), 20)}.")
    if asked.groups:
        n_groups = len(set(asked.groups.values()))
        text.append(
            f"Genes of a group: at most {asked.max_per_group}; {len(asked.groups)} genes are in "
            f"{n_groups} groups."
        )
    if asked.max_mean_counts is not None:
        text.append(
            f"No gene with more than {asked.max_mean_counts:g} counts a cell, on average over the "
            "training cells."
        )
    if asked.min_per_type is not None:
        text.append(
            f"Genes that mark each cell type: at least {asked.min_per_type}. A gene marks the type "
            "where its mean log1p expression over the training cells is highest, if it is at least "
            "log(2) above that in all other cells."
        )
    weights = [weight for weight in asked.weights.values() if weight]
    if weights:
        text.append(
            f"Genes with a weight: {len(weights)}, {min(weights):g} to {max(weights):g}; a gene of "
            "weight w that is ranked r-th counts as r / w."
        )
    weightless = [shown(name) for name, weight in asked.weights.items() if not weight]
    if weightless:
        text.append(f"No panel holds the genes of weight 0: {some(weightless, 20)}.")
    return text


def in_markdown(name: str) -> str:
    """A name in Markdown, shown as it is: neither a picture nor a link, whatever it holds.

    Not as code: MLflow shows the first characters of a page, and code that is cut is no code.
    """
    return re.sub(r"([\\`*_\[\]#|~])", r"\\\1", html.escape(name, quote=False))


def some(names: Sequence[str], most: int = _NAMED) -> str:
    """The first of some names, for a sentence, and how many there are more."""
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
