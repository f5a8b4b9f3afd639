"""Consensus panel of a method over the replicates of a study."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmlab.comparison.result_table import ResultRow, row_from_parquet
from mmlab.constraints.measure import consensus_constraints
from mmlab.datasets.cells import Cells
from mmlab.preprocessing.recipes import first_replicate_zscore
from mmlab.report.page import Section
from mmlab.report.panel import describe_panel, panel_section
from mmlab.schedule.comparison_plan import ComparisonResult
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import TrialSpec


def method_panel_section(
    result: ComparisonResult, table: pd.DataFrame, cells: Cells, method: str
) -> Section:
    """Return the section on the panel of a method; ``table`` is from :func:`method_panel`."""
    spec = result.study.spec
    method_spec = next(m for m in spec.methods if m.title == method)
    zscore = first_replicate_zscore(spec.trial(method_spec, spec.settings[0], 0), cells)
    n_panels = len(_first_setting_rows(result, method))
    return panel_section(table, method, n_panels, cells, zscore)


def method_panel(result: ComparisonResult, cells: Cells, method: str) -> pd.DataFrame:
    """Return the consensus panel of a method at the first setting of a comparison.

    The columns are those of :func:`mmlab.report.panel.describe_panel`.
    """
    rows = [
        row_from_parquet(row)
        for row in _first_setting_rows(result, method).to_dict(orient="records")
    ]
    return describe_consensus(result.study.spec, rows, cells)


def describe_consensus(
    spec: TrialSpec | ComparisonSpec, rows: Sequence[ResultRow], cells: Cells
) -> pd.DataFrame:
    """Return the consensus panel of finished replicates, under the panel constraints of ``spec``.

    The columns are those of :func:`mmlab.report.panel.describe_panel`.
    """
    panels = [np.asarray(row["panel"], np.int64) for row in rows]
    panel_constraints = consensus_constraints(
        spec, cells, panels, [row.get("marked") for row in rows]
    )
    return describe_panel(panels, cells, panel_constraints)


def _first_setting_rows(result: ComparisonResult, method: str) -> pd.DataFrame:
    first = result.study.spec.settings[0].name
    return result.replicates[
        (result.replicates["method"] == method) & (result.replicates["setting"] == first)
    ]
