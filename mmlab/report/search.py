"""Report of a search: its trials, its best trial, and the comparisons of its last promotion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.preprocessing.recipes import first_replicate_zscore
from mmlab.report.common_sections import (
    constraint_sections,
    data_section,
    failed_trials_section,
    format_params,
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
from mmlab.report.comparison_text import comparison_limitations
from mmlab.report.consensus_panel import describe_consensus, method_panel, method_panel_section
from mmlab.report.manifest import TrialEntry, search_entries
from mmlab.report.page import BestValue, PageFigure, Report, Section, Table
from mmlab.report.panel import panel_section
from mmlab.report.promotion import last_promotion, promotion_section
from mmlab.schedule.comparison_plan import ComparisonResult
from mmlab.schedule.search_figures import search_figures
from mmlab.schedule.search_summary import best_trial, trial_table
from mmlab.spec.comparison import MethodSpec
from mmlab.spec.protocol import PROTOCOL_NUMBER
from mmlab.spec.search import SearchSpec
from mmlab.system.environment import describe_environment
from mmlab.tracking import StudyRun, TrialRecord, baseline_ahead, baseline_scores, read_replicates
from mmlab.trial.outcome import Outcome
from mmlab.trial.run import final_objective

#: Maximum number of trials in the table of the page.
_MAX_LISTED_TRIALS = 20
#: Validation score of a search, as readers know it.
_SCORES = {
    "validation/knn/accuracy": "accuracy of a k-nearest neighbours classifier",
    "validation/linear/explained_variance": "share of the variance of all genes explained by "
    "linear reconstruction from the panel",
}
_CAPTIONS = {
    "search_history": "Validation score of each trial in the order of the search.",
    "parameter_scores": "Validation score of each trial against each parameter.",
    "parameter_importances": "Importance of each parameter for the validation score, estimated by "
    "Optuna (PED-ANOVA, Watanabe et al., IJCAI 2023).",
}


def report_search(study: StudyRun[SearchSpec], cells: Cells) -> tuple[Report, list[TrialEntry]]:
    """Return the report of a search, and the manifest entries of its trials.

    If the search was promoted, the report includes the comparisons of the last promotion, unless
    they were computed under another protocol number.

    Raises
    ------
    UserError
        No trial of the searched method is complete.
    """
    records, spec, tags = study.trials(), study.spec, study.tags()
    best = best_trial(study, records)
    if best is None:
        raise UserError(
            f"study {study.name} has no complete trial of {spec.search.selector}: nothing to "
            f"report. Resume the search with mmlab tune --resume {study.name}."
        )
    promotion, results = last_promotion(study, cells)
    summary = [_best_trial_sentence(study, records, best)]
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
    if promotion is not None:
        summary.insert(0, promotion["verdict"].partition("\n")[0])
        champion = promotion["winner"] or results[0].study.spec.methods[0].title
        sections += [
            promotion_section(promotion),
            methods_section(results[0].study.spec.methods),
        ]
        for result in results:
            comparison = comparison_tables(result)
            sections += result_sections(result, comparison, cells, champion)
            tables |= result_tables(result, comparison)
        tables["panel"] = method_panel(results[0], cells, champion)
        sections.append(method_panel_section(results[0], tables["panel"], cells, champion))
        rows = pd.concat([rows, *(result.replicates for result in results)], ignore_index=True)
    else:
        method = MethodSpec(selector=spec.search.selector, params=best.spec.params)
        replicates = read_replicates(study.store, best.run_id)
        table = tables["panel"] = describe_consensus(best.spec, replicates, cells)
        zscore = first_replicate_zscore(best.spec, cells)
        sections += [
            methods_section([method]),
            panel_section(table, method.title, len(replicates), cells, zscore),
        ]
    search_time = (
        "Methods marked (search) are trials of the search. Number of replicates per trial: "
        f"{spec.replicates}."
    )
    sections += [
        failed_trials_section(failed),
        runtime_section(rows, describe_environment(), [search_time]),
        limitations_section(_search_limitations(study, results), cells),
        reproduction_section(commands, tags),
    ]
    report = Report(
        f"Hyperparameter search: {spec.search.selector} on {cells.name}",
        f"Which hyperparameters of {spec.search.selector} give the best panel of "
        f"{spec.n_markers} genes for {cells.name}?",
        summary,
        sections,
        list(dict.fromkeys(commands)),
        tables,
    )
    trials = search_entries(study, [r for r in records if r.outcome == Outcome.COMPLETE])
    for result in results:
        trials += trial_entries(result)
    return report, trials


def _best_trial_sentence(
    study: StudyRun[SearchSpec], records: Sequence[TrialRecord], best: TrialRecord
) -> str:
    spec = study.spec.search
    n_trials = sum(record.selector == spec.selector for record in records)
    searched = {name: best.spec.params[name] for name in spec.parameters}
    scores = baseline_scores(study.spec, records)
    baselines = ", ".join(f"{name} {score:.4f}" for name, score in scores.items())
    sentence = (
        f"The best of {n_trials} trials of {spec.selector} is {best.digest[:8]}, with validation "
        f"score {best.score:.4f}"
        f"{f' (baselines: {baselines})' if baselines else ''} and {format_params(searched)}."
    )
    return f"{sentence} {baseline_ahead(scores, best)}".rstrip()


def _search_limitations(
    study: StudyRun[SearchSpec], results: Sequence[ComparisonResult]
) -> list[str]:
    points = [
        "The best trial of a search is selected by its validation score, so this score is biased "
        "upwards. Results on the held-out test set do not have this bias."
    ]
    if results:
        return points + comparison_limitations(results[0])
    return [
        *points,
        "The search was not promoted, or not since results of mmlab changed (protocol number "
        f"{PROTOCOL_NUMBER}), so all results are on validation cells. To evaluate the "
        f"best trial on the held-out test set, run mmlab promote {study.name}.",
    ]


def _search_section(study: StudyRun[SearchSpec], records: Sequence[TrialRecord]) -> Section:
    """Return the section with the best trials of a search and its figures."""
    spec = study.spec.search
    ranked = sorted(
        (r for r in records if r.score is not None),
        key=lambda r: (r.outcome != Outcome.COMPLETE, -(r.score or 0.0)),
    )
    names = list(spec.parameters)
    rows = []
    for rank, record in enumerate(ranked[:_MAX_LISTED_TRIALS]):
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
                BestValue(score) if rank == 0 else score,
                *values,
            ]
        )
    searched = [r for r in records if r.selector == spec.selector]
    figures = [
        PageFigure(name, _CAPTIONS[name], figure)
        for name, figure in search_figures(study, records).items()
    ]
    with_baselines = ", including baselines" if len(searched) < len(records) else ""
    text = [
        f"The search has {len(records)} trials{with_baselines}. Number of replicates per trial: "
        f"{study.spec.replicates}. A replicate is a random split into training and validation "
        "cells, without the held-out test set.",
        f"The score of a trial is the {_SCORES[final_objective(spec.selector)]} on validation "
        "cells. Stopped trials were ended early because their score was low compared with other "
        "trials at the same epoch; the table shows their last score.",
    ]
    header = ["trial", "method", "outcome", "score", *names]
    n_listed = len(rows)
    title = "Trials by score, complete trials first"
    if len(ranked) > n_listed:
        title += f" ({n_listed} of {len(ranked)})"
    table = Table(title, header, rows, n_text_columns=3)
    return Section("Hyperparameter search", text, [table], figures)


def _trial_seconds(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """Return the wall time of the trials, in the columns of the replicates of a comparison.

    Trials of older versions of mmlab have no ``fit_seconds``: NaN.
    """
    rows: list[dict[str, Any]] = [
        {
            "method": f"{r.selector} (search)",
            "seconds": r.metrics["seconds"],
            "fit_seconds": r.metrics.get("fit_seconds", math.nan) * r.spec.replicates,
        }
        for r in records
        if "seconds" in r.metrics
    ]
    return pd.DataFrame(rows, columns=["method", "seconds", "fit_seconds"])
