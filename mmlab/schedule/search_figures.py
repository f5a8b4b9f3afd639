"""Figures of a search: scores by trial and by parameter, parameter importances (Optuna)."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
import pandas as pd
from matplotlib.figure import Figure
from optuna.trial import TrialState

from mmlab import figures
from mmlab.schedule.search_algorithm import optuna_distributions, searched_params
from mmlab.selectors import control_methods
from mmlab.spec.search import Choices, Range, SearchSpec
from mmlab.tracking import StudyRun, TrialRecord
from mmlab.trial.outcome import Outcome

#: Minimum number of trials for an estimate of parameter importances.
MIN_TRIALS_FOR_IMPORTANCES = 20


def optuna_study(study: StudyRun[SearchSpec], records: Sequence[TrialRecord]) -> optuna.Study:
    """Return the complete and stopped trials of the searched method as an Optuna study."""
    space = optuna_distributions(study.spec.search)
    result = optuna.create_study(direction="maximize", study_name=study.name)
    for record in _searched(study, records):
        trial = optuna.trial.create_trial(
            state=TrialState.COMPLETE,
            value=record.score,
            params=searched_params(record.spec.params, space),
            distributions=space,
        )
        result.add_trial(trial)
    return result


def search_figures(
    study: StudyRun[SearchSpec], records: Sequence[TrialRecord]
) -> dict[str, Figure]:
    """Return the figures of a search by file name.

    Empty if the trials have fewer than two different scores. The importances of parameters
    (PED-ANOVA, Watanabe et al., IJCAI 2023) are left out if there are fewer than 20 trials.
    """
    search = study.spec.search
    searched = _searched(study, records)
    if len({record.score for record in searched}) < 2:
        return {}
    trials = pd.DataFrame(
        [
            {
                "score": record.score,
                "stopped": record.outcome == Outcome.STOPPED,
                **{name: record.spec.params[name] for name in search.parameters},
            }
            for record in searched
        ]
    )
    for name, parameter in search.parameters.items():
        if isinstance(parameter, Choices):
            choices = [str(choice) for choice in parameter.choices]
            trials[name] = pd.Categorical(trials[name].map(str), categories=choices)
    ignored = {search.selector, *control_methods()}
    baselines = {
        record.selector: record.score
        for record in records
        if record.selector not in ignored and record.score is not None
    }
    log = {name for name, p in search.parameters.items() if isinstance(p, Range) and p.log}
    result = {
        "search_history": figures.search_history(trials, baselines),
        "parameter_scores": figures.parameter_scores(trials, log),
    }
    if len(searched) >= MIN_TRIALS_FOR_IMPORTANCES:
        importances = optuna.importance.get_param_importances(optuna_study(study, records))
        result["parameter_importances"] = figures.parameter_importances(importances)
    return result


def _searched(study: StudyRun[SearchSpec], records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete and stopped trials of the searched method that have a score."""
    return [
        record
        for record in records
        if record.selector == study.spec.search.selector
        and record.outcome in (Outcome.COMPLETE, Outcome.STOPPED)
        and record.score is not None
    ]
