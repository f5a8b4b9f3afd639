"""A report with names that could break HTML, SVG, LaTeX or CSV if they were not escaped."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tiny import as_cells, simulate_cells

from mmlab.datasets.cells import Cells
from mmlab.preprocessing.recipes import prepare_layers
from mmlab.report.common_sections import data_section, failed_trials_section
from mmlab.report.page import BestValue, Report, Section, Table
from mmlab.report.panel import describe_panel, panel_section
from mmlab.spec.trial import DataSpec
from mmlab.system.environment import describe_environment

#: HTML, Jinja, LaTeX, mathtext, path separators, non-Latin scripts, and a very long name.
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"quoted\" & 'so'",
    "a/b\\c",
    "$x^2$ and $",
    "{{ 7 * 7 }}",
    "%s \\textbf{x} _#~^",
    "非ラテン文字 אבג",
    "long " * 40,
]


@pytest.fixture(scope="module")
def hostile_cells() -> Cells:
    """Simulated cells whose first genes and cell types have hostile names."""
    adata = simulate_cells()
    names = adata.var_names.to_numpy().astype(object)
    names[: len(HOSTILE)] = HOSTILE
    types = dict(zip(adata.obs["cell_type"].cat.categories, HOSTILE, strict=False))
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories(types)
    return as_cells(ad.AnnData(adata.X, adata.obs, pd.DataFrame(index=names)), "tiny & <b>")


@pytest.fixture(scope="module")
def hostile_report(hostile_cells: Cells) -> Report:
    """A report with hostile titles, gene names, cell types and error messages."""
    panels = [np.arange(12), np.arange(12)[::-1].copy()]
    table = describe_panel(panels, hostile_cells)
    all_cells = np.arange(hostile_cells.adata.n_obs)
    layers = prepare_layers(hostile_cells.adata, "total", "paper", all_cells)
    section = panel_section(table, HOSTILE[0], 2, hostile_cells, layers["zscore"])
    sections = [
        data_section(hostile_cells, "train_only"),
        section,
        failed_trials_section({HOSTILE[1]: f"ValueError: {HOSTILE[0]}"}),
        Section(
            "Best", [], [Table(HOSTILE[2], ["a", "b"], [["x", BestValue("0.9")], ["y", "0.8"]])]
        ),
    ]
    return Report(HOSTILE[0], HOSTILE[1], [HOSTILE[2]], sections, [], {"panel": table})


def about(**changes: Any) -> dict[str, Any]:
    """Return fields of a manifest, as ``write_report`` takes them, with ``changes``."""
    return {
        "study": "benchmark-tiny-1",
        "commands": ["mmlab benchmark"],
        "data": DataSpec(name="tiny"),
        "dataset": "tiny",
        "fingerprint": "ab" * 32,
        "environment": describe_environment(),
        "commit": "",
        "trials": [],
    } | changes
