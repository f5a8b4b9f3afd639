"""From a study to a report on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.report.common_sections import (
    again_section,
    cost_section,
    data_section,
    failures_section,
    held_sections,
    limits_section,
    methods_section,
)
from mmlab.report.comparison import (
    answer,
    comparison_of,
    leader,
    question,
    result_limits,
    result_sections,
    result_tables,
    trial_entries,
)
from mmlab.report.consensus_panel import consensus, panel_of
from mmlab.report.folder import check_folder, write_report
from mmlab.report.page import Report
from mmlab.report.search import report_search
from mmlab.schedule import ComparisonResult, read_comparison
from mmlab.spec.search import StudySpec
from mmlab.system.environment import environment
from mmlab.tracking import Store, open_study

_TITLES = {
    "benchmark": "Benchmark",
    "robustness": "Robustness to wrong labels",
    "sweep": "Sweep",
}


def report_study(name: str, store: Store, folder: Path) -> Report:
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
    if isinstance(study.spec, StudySpec):
        report, trials = report_search(study.asking(study.spec), cells)
    else:
        result = read_comparison(study.asking(study.spec), cells)
        if result.rows.empty:
            raise UserError(f"study {study.name} has no finished trial: nothing to report.")
        report, trials = _report_comparison(result, cells), trial_entries(result)
    about: dict[str, Any] = {
        "study": study.name,
        "commands": list(report.commands),
        "data": study.spec.data,
        "dataset": cells.name,
        "fingerprint": cells.fingerprint,
        "environment": environment(),
        "commit": study.tags().get("mlflow.source.git.commit", ""),
        "trials": trials,
    }
    write_report(report, about, folder)
    return report


def _report_comparison(result: ComparisonResult, cells: Cells) -> Report:
    spec, tags = result.study.spec, result.study.tags()
    best, commands = leader(result), [tags.get("mmlab.command", "")]
    comparison, panel = comparison_of(result), consensus(result, cells, best)
    sections = [
        data_section(cells, spec.recipe),
        *held_sections(spec),
        methods_section(spec.methods),
        *result_sections(result, comparison, cells, best),
        panel_of(result, panel, cells, best),
        failures_section(result.failed),
        cost_section(result.rows, environment()),
        limits_section(result_limits(result), cells),
        again_section(commands, tags),
    ]
    return Report(
        f"{_TITLES[spec.study]}: {cells.name}",
        question(spec),
        answer(result, best),
        sections,
        commands,
        result_tables(result, comparison) | {"panel": panel},
    )
