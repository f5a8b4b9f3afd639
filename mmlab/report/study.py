"""Report of a study: benchmark, robustness, sweep or search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.report.common_sections import (
    constraint_sections,
    data_section,
    failed_trials_section,
    limitations_section,
    methods_section,
    reproduction_section,
    runtime_section,
)
from mmlab.report.comparison import (
    comparison_tables,
    result_sections,
    result_tables,
    trial_entries,
)
from mmlab.report.comparison_text import (
    comparison_answer,
    comparison_limitations,
    comparison_question,
    leading_method,
)
from mmlab.report.consensus_panel import method_panel, method_panel_section
from mmlab.report.folder import check_folder, write_report
from mmlab.report.page import Report
from mmlab.report.search import report_search
from mmlab.schedule.comparison_plan import ComparisonResult, read_comparison
from mmlab.spec.search import SearchSpec
from mmlab.system.environment import describe_environment
from mmlab.system.folders import restore_folder
from mmlab.tracking import TrackingStore, open_study

_TITLES = {
    "benchmark": "Benchmark",
    "robustness": "Robustness to label noise",
    "sweep": "Parameter sweep",
}


def report_study(name: str, store: TrackingStore, folder: Path) -> Report:
    """Write the report of a study into a folder, and return it.

    Raises
    ------
    UserError
        The study is unknown or has no finished trial, its data have changed, or the folder
        contains other files. In these cases nothing is written.
    """
    restore_folder(folder)
    check_folder(folder)
    study = open_study(store, name)
    cells = load_cells(study.spec.data)
    study.require_data(cells, "run the study again on these data")
    if isinstance(study.spec, SearchSpec):
        report, trials = report_search(study.with_spec(study.spec), cells)
    else:
        result = read_comparison(study.with_spec(study.spec), cells)
        if result.replicates.empty:
            raise UserError(
                f"study {study.name} has no finished trial: nothing to report. Run the study again."
            )
        report, trials = _report_comparison(result, cells), trial_entries(result)
    manifest_fields: dict[str, Any] = {
        "study": study.name,
        "commands": list(report.commands),
        "data": study.spec.data,
        "dataset": cells.name,
        "fingerprint": cells.fingerprint,
        "environment": describe_environment(),
        "commit": study.tags().get("mlflow.source.git.commit", ""),
        "trials": trials,
    }
    write_report(report, manifest_fields, folder)
    return report


def _report_comparison(result: ComparisonResult, cells: Cells) -> Report:
    spec, tags = result.study.spec, result.study.tags()
    best, commands = leading_method(result), [tags.get("mmlab.command", "")]
    comparison, panel = comparison_tables(result), method_panel(result, cells, best)
    sections = [
        data_section(cells, spec.recipe),
        *constraint_sections(spec),
        methods_section(spec.methods),
        *result_sections(result, comparison, cells, best),
        method_panel_section(result, panel, cells, best),
        failed_trials_section(result.failed),
        runtime_section(result.replicates, describe_environment()),
        limitations_section(comparison_limitations(result), cells),
        reproduction_section(commands, tags),
    ]
    return Report(
        f"{_TITLES[spec.study]}: {cells.name}",
        comparison_question(spec),
        comparison_answer(result, comparison.tests, best),
        sections,
        commands,
        result_tables(result, comparison) | {"panel": panel},
    )
