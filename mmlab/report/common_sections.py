"""Sections of every report: data, methods, failed trials, runtime, limitations, reproduction."""

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
    "total": "counts of each cell scaled to a total of 10,000, then log1p",
    "none": "log1p of the counts, without scaling",
    "l2": "log1p of the counts, then each cell divided by its Euclidean norm",
}
_STANDARDIZATION = {
    "train_only": "z-scores clipped at 10; mean and standard deviation of each gene computed from "
    "the training cells only",
    "paper": "z-scores clipped at 10; mean and standard deviation of each gene computed from all "
    "cells, including the test cells, as in the published tables",
}


def data_section(cells: Cells, recipe: Recipe) -> Section:
    """Return the section on the dataset: origin, size, preprocessing and cells per type."""
    properties = [
        ("dataset", cells.name + (" (simulated)" if cells.simulated else "")),
        ("origin", cells.origin),
        ("cells", f"{cells.adata.n_obs:,}"),
        ("genes", f"{cells.adata.n_vars:,}"),
        ("cell types", str(len(cells.classes))),
        ("preprocessing", f"{_NORMALIZATION[cells.normalization]}; {_STANDARDIZATION[recipe]}"),
        ("fingerprint (SHA-256)", cells.fingerprint),
    ]
    sizes = np.bincount(cells.y, minlength=len(cells.classes))
    types = [[name, str(n)] for name, n in zip(cells.classes, sizes, strict=True)]
    text = list(cells.notes)
    if cells.simulated:
        text.insert(0, "The dataset is simulated: its counts were not measured.")
    if note := sampling_note(cells.adata.n_obs):
        text.append(note)
    return Section(
        "Data",
        text,
        [
            Table("Dataset", ["", ""], [list(row) for row in properties], n_text_columns=2),
            Table("Cells per type", ["cell type", "cells"], types),
        ],
    )


def constraint_sections(spec: TrialSpec | ConstrainedSpec) -> list[Section]:
    """Return the section on the panel constraints, or an empty list if there are none."""
    text = describe_constraints(spec)
    if not text:
        return []
    scope = (
        "The constraints apply to the panels of every method. Constraints that depend on "
        "expression are evaluated on the training cells of each replicate. manifest.json lists "
        "the names of all constrained genes."
    )
    return [Section("Panel constraints", [*text, scope])]


def methods_section(methods: Sequence[MethodSpec]) -> Section:
    """Return the section on the compared methods, with the parameters that are not defaults."""
    rows = []
    for method in methods:
        selector = SELECTORS[method.selector]
        defaults = resolve_params(method.selector, {})
        changed = {name: value for name, value in method.params.items() if defaults[name] != value}
        rows.append(
            [
                method.title,
                selector.summary,
                "required" if selector.supervised else "not used",
                format_params(changed) or "defaults",
                selector.reference,
            ]
        )
    header = ["method", "description", "cell type labels", "parameters", "reference"]
    title = "Compared methods" if len(rows) > 1 else "Method"
    return Section("Methods", [], [Table(title, header, rows, n_text_columns=5)])


def format_params(params: dict[str, Scalar]) -> str:
    """Return parameters as ``name=value, ...``, floats with four significant digits."""
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )


def failed_trials_section(failed: dict[str, str]) -> Section:
    """Return the section on failed trials; ``failed`` maps a trial to the reason."""
    if not failed:
        return Section("Failed trials", ["No trial failed."])
    rows = [[name, reason.splitlines()[-1] if reason else ""] for name, reason in failed.items()]
    text = ["The results do not include these trials."]
    table = Table("Failed trials", ["trial", "reason"], rows, n_text_columns=2)
    return Section("Failed trials", text, [table])


def runtime_section(
    rows: pd.DataFrame, environment: dict[str, Any], notes: Sequence[str] = ()
) -> Section:
    """Return the section on the wall time of each method.

    Parameters
    ----------
    rows
        One row per trial: columns method, seconds (whole trial) and fit_seconds (selection; NaN
        if unknown).
    environment
        From :func:`mmlab.system.environment.describe_environment`.
    notes
        Further paragraphs above the table.
    """
    body = [
        [
            str(method),
            str(len(group)),
            "" if group["fit_seconds"].isna().all() else f"{group['fit_seconds'].mean():.1f}",
            f"{group['seconds'].mean():.1f}",
            f"{group['seconds'].sum() / 60:.1f}",
        ]
        for method, group in rows.groupby("method", sort=False)
    ]
    gpus = ", ".join(environment["gpus"]) or "none"
    header = [
        "method",
        "trials",
        "selection per trial (s)",
        "selection and evaluation per trial (s)",
        "total (min)",
    ]
    return Section(
        "Runtime",
        [
            "Wall time. Selection is training, with the validation scores on which a method stops "
            "early, and without loading and preparation of the data. "
            "Each trial runs on its own CPU threads or its own share of a GPU. "
            f"Machine on which this report was written: {environment['platform']}, "
            f"{environment['cpus']} CPUs ({environment['arithmetic']}), GPUs: {gpus}.",
            *notes,
        ],
        [Table("Wall time per method", header, body)],
    )


def limitations_section(points: Sequence[str], cells: Cells) -> Section:
    """Return the section on limitations: those of the study, then those of every report."""
    general = [
        "Accuracy is the accuracy of a classifier on test cells of the same experiment. It "
        "measures how well a panel separates these cell types in these data; it is not an "
        "estimate for another tissue or measurement platform.",
        "Random splits share cells, so replicates are not independent. The t-test is corrected "
        "for this; the standard deviations are not.",
    ]
    if cells.simulated:
        general.append("The data are simulated.")
    return Section("Limitations", [*points, *general])


def reproduction_section(commands: Sequence[str], tags: dict[str, str]) -> Section:
    """Return the section with the commands that reproduce the report."""
    commit = tags.get("mlflow.source.git.commit")
    version = f"mmlab {tags.get('mmlab.version', '')}" + (f", commit {commit}" if commit else "")
    return Section(
        "Reproduce this report",
        [
            f"The results were computed with {version}, by the commands below. The last command "
            "computes all trials again and compares every metric with manifest.json. This file is "
            "in the folder of this page; it contains the specification, digest, panel and metrics "
            "of every trial, and the hash of every file of the report."
        ],
        commands=[*dict.fromkeys(filter(None, commands)), "mmlab reproduce manifest.json"],
    )
