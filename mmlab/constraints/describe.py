"""Panel constraints as sentences, in plain text or Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence

from mmlab.spec.constraints import ConstrainedSpec
from mmlab.spec.trial import TrialSpec

#: Names that a sentence lists.
MOST_NAMED = 5


def describe_constraints(
    spec: TrialSpec | ConstrainedSpec, shown: Callable[[str], str] = str
) -> list[str]:
    """What every panel holds, a sentence each, for people; empty where nothing is asked.

    ``shown`` gives the name of a gene as it stands there: :func:`escape_markdown` for that.
    """
    asked, text = spec.constraints, []
    if spec.include:
        text.append(f"Every panel holds {list_names(list(map(shown, spec.include)), 20)}.")
    if spec.exclude:
        text.append(f"No panel holds {list_names(list(map(shown, spec.exclude)), 20)}.")
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
        text.append(f"No panel holds the genes of weight 0: {list_names(weightless, 20)}.")
    return text


def escape_markdown(name: str) -> str:
    """A name in Markdown, shown as it is: neither a picture nor a link, whatever it holds.

    Not as code: MLflow shows the first characters of a page, and code that is cut is no code.
    """
    return re.sub(r"([\\`*_\[\]#|~])", r"\\\1", html.escape(name, quote=False))


def list_names(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first of some names, for a sentence, and how many there are more."""
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
