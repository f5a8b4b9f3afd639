"""The parts that every report has: data, methods, failures, cost, limits, how to do it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmlab.constraints.describe import describe_constraints
from mmlab.datasets.cells import Cells
from mmlab.preprocessing.splits import sampling_note
from mmlab.report.page import Section, Table
from mmlab.selectors import SELECTORS, resolve_params
from mmlab.spec.base import Scalar
from mmlab.spec.comparison import MethodSpec
from mmlab.spec.constraints import ConstrainedSpec
from mmlab.spec.protocol import Recipe
from mmlab.spec.trial import TrialSpec

_NORMALIZATION = {
    "total": "total counts of every cell scaled to 10,000, log1p",
    "none": "counts as they are, log1p",
    "l2": "log1p, every cell divided by its Euclidean norm",
}
_RECIPE = {
    "train_only": "z-scores clipped at 10, mean and standard deviation of each gene from the "
    "training cells alone",
    "paper": "z-scores clipped at 10, mean and standard deviation of each gene from all cells, "
    "test cells included, as in the published tables",
}


def data_section(cells: Cells, recipe: Recipe) -> Section:
    """What was measured on."""
    facts = [
        ("dataset", cells.name + (" (simulated)" if cells.simulated else "")),
        ("origin", cells.origin),
        ("cells", f"{cells.adata.n_obs:,}"),
        ("genes", f"{cells.adata.n_vars:,}"),
        ("types", str(len(cells.classes))),
        ("preprocessing", f"{_NORMALIZATION[cells.normalization]}; {_RECIPE[recipe]}"),
        ("fingerprint", cells.fingerprint),
    ]
    sizes = np.bincount(cells.y, minlength=len(cells.classes))
    types = [[name, str(n)] for name, n in zip(cells.classes, sizes, strict=True)]
    text = list(cells.notes)
    if cells.simulated:
        text.insert(0, "These cells are simulated: none was ever measured.")
    if sampled := sampling_note(cells.adata.n_obs):
        text.append(sampled)
    return Section(
        "Data",
        text,
        [
            Table("What they are", ["", ""], [list(fact) for fact in facts], n_texts=2),
            Table("Cells of each type", ["type", "cells"], types),
        ],
    )


def constraint_sections(spec: TrialSpec | ConstrainedSpec) -> list[Section]:
    """What every panel had to hold; no section where nothing was asked."""
    text = describe_constraints(spec)
    if not text:
        return []
    choice = (
        "Every method chose among the panels that hold this; manifest.json has the names of all "
        "genes. What depends on cells was measured on the training cells of each replicate."
    )
    return [Section("What every panel holds", [*text, choice])]


def methods_section(methods: Sequence[MethodSpec]) -> Section:
    """What was compared, with every parameter that is not a default."""
    rows = []
    for method in methods:
        selector = SELECTORS[method.selector]
        own = {
            name: value
            for name, value in method.params.items()
            if resolve_params(method.selector, {})[name] != value
        }
        labels = "needed" if selector.supervised else "not used"
        rows.append(
            [
                method.title,
                selector.summary,
                labels,
                format_params(own) or "defaults",
                selector.reference,
            ]
        )
    header = ["method", "what it is", "labels", "parameters", "source"]
    return Section("Methods", [], [Table("Methods", header, rows, n_texts=5)])


def format_params(params: dict[str, Scalar]) -> str:
    """Parameters in a line, four digits each."""
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )


def failures_section(failed: dict[str, str]) -> Section:
    """What failed, and why."""
    if not failed:
        return Section("What failed", ["Nothing: every trial ran to its end."])
    rows = [[name, reason.splitlines()[-1] if reason else ""] for name, reason in failed.items()]
    return Section("What failed", [], [Table("Trials", ["trial", "reason"], rows, n_texts=2)])


def cost_section(rows: pd.DataFrame, environment: dict[str, Any]) -> Section:
    """Time of each method; ``rows`` have the columns method, seconds and fit_seconds."""
    groups = rows.groupby("method", sort=False)
    body = [
        [
            str(method),
            str(len(own)),
            f"{own['fit_seconds'].mean():.1f}",
            f"{own['seconds'].mean():.1f}",
            f"{own['seconds'].sum() / 60:.1f}",
        ]
        for method, own in groups
    ]
    gpus = ", ".join(environment["gpus"]) or "none"
    header = ["method", "trials", "seconds to choose", "seconds in all", "minutes together"]
    return Section(
        "Cost",
        [
            f"Wall time of a trial, alone on its CPU thread or GPU share. This report was made on "
            f"{environment['platform']} with {environment['cpus']} CPUs "
            f"({environment['arithmetic']}), GPUs: {gpus}."
        ],
        [Table("Time", header, body)],
    )


def limits_section(points: Sequence[str], cells: Cells) -> Section:
    """What must not be read into the numbers."""
    own = [
        "Accuracy is that of a classifier on held-out cells of the same experiment: it says how "
        "well a panel tells these types apart here, not in another tissue or on another platform.",
        "Random splits share cells, so replicates are not independent: the tests allow for it, the "
        "standard deviations do not.",
    ]
    if cells.simulated:
        own.append("The data are simulated.")
    return Section("Limits", [*points, *own])


def reproduction_section(commands: Sequence[str], tags: dict[str, str]) -> Section:
    """How to get the same numbers again."""
    commit = tags.get("mlflow.source.git.commit")
    where = f"mmlab {tags.get('mmlab.version', '')}" + (f", commit {commit}" if commit else "")
    return Section(
        "How to reproduce it",
        [
            f"The numbers were computed by {where}. manifest.json beside this page holds the "
            "specification, the digest and the metrics of every trial, and the hash of every file. "
            "The last command computes everything again and compares number by number."
        ],
        commands=[*dict.fromkeys(filter(None, commands)), "mmlab reproduce manifest.json"],
    )
