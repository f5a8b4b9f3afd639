"""Optuna's figures of a search: history, parallel coordinates, parameter importances."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
from matplotlib import pyplot, rc_context
from matplotlib.figure import Figure
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from mmlab.schedule.search_algorithm import optuna_distributions, searched_params
from mmlab.spec.search import SearchSpec
from mmlab.tracking import Outcome, StudyRun, TrialRecord


def optuna_study(study: StudyRun[SearchSpec], records: list[TrialRecord]) -> optuna.Study:
    """Return the complete and stopped trials as an Optuna study, for Optuna's analyses."""
    space = optuna_distributions(study.spec.search)
    result = optuna.create_study(direction="maximize", study_name=study.name)
    states = {Outcome.COMPLETE: TrialState.COMPLETE, Outcome.STOPPED: TrialState.COMPLETE}
    for record in records:
        if record.outcome not in states or record.score is None:
            continue
        trial = optuna.trial.create_trial(
            state=states[record.outcome],
            value=record.score,
            params=searched_params(record.spec.params, space),
            distributions=space,
        )
        result.add_trial(trial)
    return result


def search_figures(study: StudyRun[SearchSpec], records: list[TrialRecord]) -> dict[str, Figure]:
    """Return Optuna's figures of a search by file name.

    Empty if the trials have fewer than two different scores.
    """
    search = optuna_study(study, records)
    values = {trial.value for trial in search.trials}
    if len(values) < 2:
        return {}
    figures: dict[str, Figure] = {}
    target = "validation score"
    with warnings.catch_warnings(), rc_context({"figure.figsize": (9, 5)}):
        warnings.simplefilter("ignore")
        figures["optimization_history"] = _figure(
            plots.plot_optimization_history(search, target_name=target)
        )
        figures["parallel_coordinate"] = _figure(
            plots.plot_parallel_coordinate(search, target_name=target)
        )
        figures["param_importances"] = _figure(
            plots.plot_param_importances(search, target_name=target)
        )
    return figures


def _figure(axes: Any) -> Figure:
    figure: Figure = axes.get_figure()
    # Optuna draws with pyplot, which keeps open figures in memory. A closed one can be saved.
    pyplot.close(figure)
    return figure
