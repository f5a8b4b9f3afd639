"""Optuna's sampler and the early stopping of a search, warm-started from its ended trials."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from mmlab.datasets.cells import Cells
from mmlab.schedule.search_actor import DIVERGED_SCORE
from mmlab.spec.base import Scalar
from mmlab.spec.search import Choices, Range, SearchSpace, SearchSpec
from mmlab.tracking import ENDED, Outcome, StudyRun, TrialRecord
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.objective import SCORE
from mmlab.trial.run import OBJECTIVE

optuna.logging.set_verbosity(optuna.logging.WARNING)

_PREFIX = "params/"


def optuna_distributions(search: SearchSpace) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of each searched parameter."""
    return {name: _distribution(space) for name, space in search.parameters.items()}


def _distribution(space: Range | Choices) -> BaseDistribution:
    if isinstance(space, Choices):
        return CategoricalDistribution(space.choices)
    if space.integer:
        return IntDistribution(int(space.low), int(space.high), log=space.log)
    return FloatDistribution(space.low, space.high, log=space.log)


def make_searcher(
    study: StudyRun[SearchSpec], records: list[TrialRecord], cells: Cells
) -> OptunaSearch:
    """Return Optuna's TPE sampler, initialised with the ended trials.

    It first proposes the interrupted configurations. In a new study it first proposes the
    selector's default configuration, if the search space contains it.
    """
    search = study.spec.search
    space = optuna_distributions(search)
    interrupted = [searched_params(r.spec.params, space) for r in records if r.outcome not in ENDED]
    first = interrupted if records else _default_point(study, cells, space)
    searcher = OptunaSearch(
        space={_PREFIX + name: distribution for name, distribution in space.items()},
        metric=SCORE,
        mode="max",
        points_to_evaluate=[_prefixed(point) for point in first],
        # After a resume the proposals differ from those of an uninterrupted search.
        sampler=optuna.samplers.TPESampler(seed=study.spec.seed + len(records)),
    )
    for record in records:
        if record.outcome in ENDED:
            point = _prefixed(searched_params(record.spec.params, space))
            score = DIVERGED_SCORE if record.score is None else record.score
            searcher.add_evaluated_point(point, score)
    return searcher


class WarmStartASHA(ASHAScheduler):
    """Asynchronous successive halving whose rungs contain the scores of the ended trials."""

    def __init__(
        self, study: StudyRun[SearchSpec], max_epochs: int, records: list[TrialRecord]
    ) -> None:
        search = study.spec.search
        grace = search.rungs(max_epochs)[0]
        super().__init__(
            time_attr="epoch",
            metric=SCORE,
            mode="max",
            # No rung at the last epoch: a trial that gets that far is evaluated.
            max_t=max(max_epochs - 1, grace),
            grace_period=grace,
            reduction_factor=search.reduction_factor,
            stop_last_trials=False,
        )
        # Interrupted trials run again and are left out: their old scores would compete with the
        # new ones at rungs that no trial of this run has reached, and could stop all trials. For
        # the same reason the stopped trials count only beside a complete one: the trial that
        # they lost against may be one that was interrupted.
        outcomes = {record.outcome for record in records}
        counted = ENDED if Outcome.COMPLETE in outcomes else ()
        for record in (record for record in records if record.outcome in counted):
            ended_trial: Any = SimpleNamespace(trial_id=record.run_id)
            for epoch, score in study.score_history(record, OBJECTIVE):
                self._brackets[0].on_result(ended_trial, epoch, score)


def searched_params(
    params: dict[str, Scalar], space: dict[str, BaseDistribution]
) -> dict[str, Scalar]:
    """Return the searched parameters of a trial."""
    return {name: params[name] for name in space}


def _prefixed(point: dict[str, Scalar]) -> dict[str, Scalar]:
    return {_PREFIX + name: value for name, value in point.items()}


def _default_point(
    study: StudyRun[SearchSpec], cells: Cells, space: dict[str, BaseDistribution]
) -> list[dict[str, Scalar]]:
    """Return the default configuration as a list of one; empty if it is outside the space."""
    search = study.spec.search
    default = resolve_spec(study.spec.trial(search.selector, search.fixed), cells)
    defaults = searched_params(default.params, space)
    inside = all(_contains(search.parameters[name], value) for name, value in defaults.items())
    return [defaults] if inside else []


def _contains(space: Range | Choices, value: Any) -> bool:
    if isinstance(space, Choices):
        return value in space.choices
    return not isinstance(value, str) and bool(space.low <= value <= space.high)
