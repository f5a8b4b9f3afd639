"""Optuna proposes, successive halving stops; both start from the record of a resumed study."""

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
from mmlab.schedule.actor import DIVERGED_SCORE, SCORE
from mmlab.spec.base import Scalar
from mmlab.spec.search import Choices, Range, SearchSpace, SearchSpec
from mmlab.tracking import ENDED, StudyRun, TrialRecord
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.run import OBJECTIVE

optuna.logging.set_verbosity(optuna.logging.WARNING)

_PREFIX = "params/"


def distributions(search: SearchSpace) -> dict[str, BaseDistribution]:
    """The search space in Optuna's terms."""
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
    """TPE that knows the ended trials, and first proposes what was interrupted.

    A new study begins with the selector's default configuration, where the space holds it.
    """
    search = study.spec.search
    space = distributions(search)
    interrupted = [searched_params(r.spec.params, space) for r in records if r.outcome not in ENDED]
    first = interrupted if records else _default_point(study, cells, space)
    searcher = OptunaSearch(
        space={_PREFIX + name: distribution for name, distribution in space.items()},
        metric=SCORE,
        mode="max",
        points_to_evaluate=[_prefixed(point) for point in first],
        # Proposals after a resume differ from those before it, as with any asynchronous search.
        sampler=optuna.samplers.TPESampler(seed=study.spec.seed + len(records)),
    )
    for record in records:
        if record.outcome in ENDED:
            point = _prefixed(searched_params(record.spec.params, space))
            score = DIVERGED_SCORE if record.score is None else record.score
            searcher.add_evaluated_point(point, score)
    return searcher


class RecordedHalving(ASHAScheduler):
    """Asynchronous successive halving whose rungs already hold the trials that have ended."""

    def __init__(
        self, study: StudyRun[SearchSpec], max_epochs: int, records: list[TrialRecord]
    ) -> None:
        search = study.spec.search
        grace = search.rungs(max_epochs)[0]
        super().__init__(
            time_attr="epoch",
            metric=SCORE,
            mode="max",
            # No comparison in the last epoch: whoever gets that far is evaluated.
            max_t=max(max_epochs - 1, grace),
            grace_period=grace,
            reduction_factor=search.reduction_factor,
            stop_last_trials=False,
        )
        # What was interrupted runs again: as a rival of the others, and of itself, it would count
        # where nobody got in this run, and could stop them all.
        for record in (record for record in records if record.outcome in ENDED):
            past: Any = SimpleNamespace(trial_id=record.run_id)
            for epoch, score in study.score_history(record, OBJECTIVE):
                self._brackets[0].on_result(past, epoch, score)


def searched_params(
    params: dict[str, Scalar], space: dict[str, BaseDistribution]
) -> dict[str, Scalar]:
    """The searched ones among the parameters of a trial."""
    return {name: params[name] for name in space}


def _prefixed(point: dict[str, Scalar]) -> dict[str, Scalar]:
    return {_PREFIX + name: value for name, value in point.items()}


def _default_point(
    study: StudyRun[SearchSpec], cells: Cells, space: dict[str, BaseDistribution]
) -> list[dict[str, Scalar]]:
    search = study.spec.search
    default = resolve_spec(study.spec.trial(search.selector, search.fixed), cells)
    defaults = searched_params(default.params, space)
    inside = all(_holds(search.parameters[name], value) for name, value in defaults.items())
    return [defaults] if inside else []


def _holds(space: Range | Choices, value: Any) -> bool:
    if isinstance(space, Choices):
        return value in space.choices
    return not isinstance(value, str) and bool(space.low <= value <= space.high)
