"""Describe panel constraints in sentences, as plain text or Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence

from mmlab.spec.constraints import ConstrainedSpec
from mmlab.spec.trial import TrialSpec

#: Maximum number of names that a message lists.
MAX_NAMES = 5

#: The same for the descriptions on pages and in reports.
_MAX_NAMES_ON_PAGE = 20


def describe_constraints(
    spec: TrialSpec | ConstrainedSpec, format_name: Callable[[str], str] = str
) -> list[str]:
    """Return one or two sentences for each panel constraint; [] without constraints.

    Parameters
    ----------
    format_name
        Function that formats the name of a gene; :func:`escape_markdown` for Markdown.
    """
    constraints, text = spec.constraints, []

    def names(genes: Sequence[str]) -> str:
        return list_names(list(map(format_name, genes)), _MAX_NAMES_ON_PAGE)

    if spec.include:
        text.append(f"Every panel includes {names(spec.include)}.")
    if spec.exclude:
        text.append(f"No panel includes {names(spec.exclude)}.")
    if constraints.groups:
        n_groups = len(set(constraints.groups.values()))
        text.append(
            f"At most {constraints.max_per_group} genes per group ({len(constraints.groups)} "
            f"genes in {n_groups} groups)."
        )
    if constraints.max_mean_counts is not None:
        text.append(
            f"Genes with a mean of more than {constraints.max_mean_counts:g} counts per training "
            "cell are excluded."
        )
    if constraints.min_per_type is not None:
        text.append(
            f"At least {constraints.min_per_type} marker genes per cell type. A gene is a marker "
            "of the type in which its mean log1p expression over the training cells is highest, "
            "if this mean exceeds the mean over all other cells by at least log(2)."
        )
    weights = [weight for weight in constraints.weights.values() if weight]
    if weights:
        text.append(
            f"Weighted genes: {len(weights)}, with weights from {min(weights):g} to "
            f"{max(weights):g}. A gene of weight w at rank r counts as rank r / w."
        )
    weightless = [name for name, weight in constraints.weights.items() if not weight]
    if weightless:
        text.append(f"Genes of weight 0 are excluded: {names(weightless)}.")
    return text


def escape_markdown(name: str) -> str:
    """Escape a name for Markdown and HTML, so that it is displayed literally.

    It is not formatted as code: MLflow shortens long descriptions, which could cut a code span.
    """
    return re.sub(r"([\\`*_\[\]#|~])", r"\\\1", html.escape(name, quote=False))


def list_names(names: Sequence[str], maximum: int = MAX_NAMES) -> str:
    """Join the first ``maximum`` names and add the number of the others."""
    more = f", and {len(names) - maximum} more" if len(names) > maximum else ""
    return ", ".join(names[:maximum]) + more
