"""From a study to a report on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.report.common_sections import (
    constraint_sections,
    cost_section,
    data_section,
    failures_section,
    limits_section,
    methods_section,
    reproduction_section,
)
from mmlab.report.comparison import (
    comparison_tables,
    leading_method,
    result_limits,
    result_sections,
    result_tables,
    study_answer,
    study_question,
    trial_entries,
)
from mmlab.report.consensus_panel import consensus, panel_of
from mmlab.report.folder import check_folder, write_report
from mmlab.report.page import Report
from mmlab.report.search import report_search
from mmlab.schedule import ComparisonResult, read_comparison
from mmlab.spec.search import SearchSpec
from mmlab.system.environment import describe_environment
from mmlab.tracking import TrackingStore, open_study

_TITLES = {
    "benchmark": "Benchmark",
    "robustness": "Robustness to wrong labels",
    "sweep": "Sweep",
}


def report_study(name: str, store: TrackingStore, folder: Path) -> Report:
    """Write the report of a study into a folder.

    Raises
    ------
    UserError
        Unknown study, nothing finished in it, data that have changed since, or a folder that holds
        something else; nothing is written then.
    """
    check_folder(folder)
    study = open_study(store, name)
    cells = load_cells(study.spec.data)
    study.require_data(cells, "run it again")
    if isinstance(study.spec, SearchSpec):
        report, trials = report_search(study.with_spec(study.spec), cells)
    else:
        result = read_comparison(study.with_spec(study.spec), cells)
        if result.replicates.empty:
            raise UserError(f"study {study.name} has no finished trial: nothing to report.")
        report, trials = _report_comparison(result, cells), trial_entries(result)
    about: dict[str, Any] = {
        "study": study.name,
        "commands": list(report.commands),
        "data": study.spec.data,
        "dataset": cells.name,
        "fingerprint": cells.fingerprint,
        "environment": describe_environment(),
        "commit": study.tags().get("mlflow.source.git.commit", ""),
        "trials": trials,
    }
    write_report(report, about, folder)
    return report


def _report_comparison(result: ComparisonResult, cells: Cells) -> Report:
    spec, tags = result.study.spec, result.study.tags()
    best, commands = leading_method(result), [tags.get("mmlab.command", "")]
    comparison, panel = comparison_tables(result), consensus(result, cells, best)
    sections = [
        data_section(cells, spec.recipe),
        *constraint_sections(spec),
        methods_section(spec.methods),
        *result_sections(result, comparison, cells, best),
        panel_of(result, panel, cells, best),
        failures_section(result.failed),
        cost_section(result.replicates, describe_environment()),
        limits_section(result_limits(result), cells),
        reproduction_section(commands, tags),
    ]
    return Report(
        f"{_TITLES[spec.study]}: {cells.name}",
        study_question(spec),
        study_answer(result, best),
        sections,
        commands,
        result_tables(result, comparison) | {"panel": panel},
    )
