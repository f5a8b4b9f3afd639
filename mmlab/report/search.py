"""A search as a report, with what its promotion found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.preprocessing.recipes import first_replicate_zscore
from mmlab.report.common_sections import (
    constraint_sections,
    cost_section,
    data_section,
    failures_section,
    format_params,
    limits_section,
    methods_section,
    reproduction_section,
)
from mmlab.report.comparison import (
    comparison_tables,
    result_limits,
    result_sections,
    result_tables,
    trial_entries,
)
from mmlab.report.consensus_panel import consensus, consensus_of, panel_of
from mmlab.report.manifest import TrialEntry, search_entries
from mmlab.report.page import Best, PageFigure, Report, Section, Table
from mmlab.report.panel import panel_section
from mmlab.schedule import (
    ComparisonResult,
    best_trial,
    read_comparison,
    search_figures,
    trial_table,
)
from mmlab.spec.comparison import ComparisonSpec, MethodSpec
from mmlab.spec.search import SearchSpec
from mmlab.system.environment import describe_environment
from mmlab.tracking import Outcome, StudyRun, TrialRecord, find_study, promotions, trial_rows

#: Configurations that are listed.
_LISTED = 20


def report_search(study: StudyRun[SearchSpec], cells: Cells) -> tuple[Report, list[TrialEntry]]:
    """The report of a search, with what its last promotion found, and the trials it rests on.

    Raises
    ------
    UserError
        No trial ran to its end.
    """
    records, spec, tags = study.trials(), study.spec, study.tags()
    best = best_trial(study, records)
    if best is None:
        raise UserError(f"no trial of study {study.name} ran to its end: nothing to report.")
    promoted = promotions(study)
    results = _judged(study, promoted[-1]["comparisons"], cells) if promoted else []
    rows = _trial_seconds(records)
    failed = {r.digest[:8]: r.reason for r in records if r.outcome == Outcome.FAILED}
    commands = [tags.get("mmlab.command", "")]
    for result in results:
        commands.append(result.study.tags().get("mmlab.command", ""))
        failed |= result.failed
    sections = [
        data_section(cells, "train_only"),
        *constraint_sections(spec),
        _search_section(study, records),
    ]
    tables = {"trials": trial_table(records)}
    if results:
        best_title = results[0].study.spec.methods[0].title
        sections.append(methods_section(results[0].study.spec.methods))
        for result in results:
            comparison = comparison_tables(result)
            sections += result_sections(result, comparison, cells, best_title)
            tables |= result_tables(result, comparison)
        tables["panel"] = consensus(results[0], cells, best_title)
        sections.append(panel_of(results[0], tables["panel"], cells, best_title))
        rows = pd.concat([rows, *(result.replicates for result in results)], ignore_index=True)
    else:
        method = MethodSpec(selector=spec.search.selector, params=best.spec.params)
        own = trial_rows(study.store, best.run_id)
        table = tables["panel"] = consensus_of(best.spec, own, cells)
        zscore = first_replicate_zscore(best.spec, cells)
        sections += [
            methods_section([method]),
            panel_section(table, method.title, len(own), cells, zscore),
        ]
    sections += [
        failures_section(failed),
        cost_section(rows, describe_environment()),
        limits_section(_limits(study, results), cells),
        reproduction_section(commands, tags),
    ]
    searched = {name: best.spec.params[name] for name in spec.search.parameters}
    summary = [
        f"Of {len(records)} trials the best on validation cells is {best.digest[:8]}, score "
        f"{best.score:.4f}, with {format_params(searched)}."
    ]
    summary += [promoted[-1]["verdict"]] if promoted else []
    report = Report(
        f"Search: {spec.search.selector} on {cells.name}",
        f"Which settings of {spec.search.selector} give the best panel of {spec.n_markers} genes "
        f"for {cells.name}?",
        summary,
        sections,
        list(dict.fromkeys(commands)),
        tables,
    )
    trials = search_entries(study, [r for r in records if r.outcome == Outcome.COMPLETE])
    for result in results:
        trials += trial_entries(result)
    return report, trials


def _judged(
    study: StudyRun[SearchSpec], names: Sequence[str], cells: Cells
) -> list[ComparisonResult]:
    """The comparisons of a promotion."""
    results = []
    for name in names:
        found = find_study(study.store, name)
        if found is not None and isinstance(found.spec, ComparisonSpec):
            results.append(read_comparison(found.with_spec(found.spec), cells))
    return results


def _limits(study: StudyRun[SearchSpec], results: Sequence[ComparisonResult]) -> list[str]:
    points = [
        "Validation scores of a search are those of the configurations that it chose by them, and "
        "favour these: the locked cells do not."
    ]
    if results:
        return points + result_limits(results[0])
    return [
        *points,
        "The search was not promoted: all numbers are on validation cells. The locked test cells "
        f"are opened by mmlab promote {study.name}.",
    ]


def _search_section(study: StudyRun[SearchSpec], records: Sequence[TrialRecord]) -> Section:
    spec = study.spec.search
    ranked = sorted(
        (r for r in records if r.score is not None),
        key=lambda r: (r.outcome != Outcome.COMPLETE, -(r.score or 0.0)),
    )
    names = list(spec.parameters)
    rows = []
    for place, record in enumerate(ranked[:_LISTED]):
        score = f"{record.score:.4f}"
        values = [
            format_params({name: record.spec.params[name]}).partition("=")[2]
            if name in record.spec.params
            else ""
            for name in names
        ]
        rows.append(
            [
                record.digest[:8],
                record.selector,
                str(record.outcome),
                Best(score) if place == 0 else score,
                *values,
            ]
        )
    searched = [r for r in records if r.selector == spec.selector]
    pictures = [
        PageFigure(f"search_{name}", f"{name.replace('_', ' ').capitalize()} (Optuna).", figure)
        for name, figure in search_figures(study, searched).items()
    ]
    text = [
        f"{len(records)} trials, each on {study.spec.replicates} random splits of the cells that "
        "are not locked; scores are measured on validation cells. Those stopped early looked "
        "worse than others after as many epochs; their score is the last they had."
    ]
    header = ["trial", "method", "ended", "score", *names]
    return Section(
        "The search", text, [Table("The best configurations", header, rows, n_texts=3)], pictures
    )


def _trial_seconds(records: Sequence[TrialRecord]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {
            "method": f"{r.selector} (search)",
            "seconds": r.metrics["seconds"],
            "fit_seconds": r.metrics["seconds"],
        }
        for r in records
        if "seconds" in r.metrics
    ]
    return pd.DataFrame(rows, columns=["method", "seconds", "fit_seconds"])
