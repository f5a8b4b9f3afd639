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
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from mmlab.schedule.actor import FAILED_SCORE
from mmlab.schedule.search_trials import SearchTrials
from mmlab.spec.base import Scalar
from mmlab.spec.search import Choices, Range, SearchSpace
from mmlab.trial.objective import SCORE
from mmlab.trial.outcome import ENDED, Outcome

optuna.logging.set_verbosity(optuna.logging.WARNING)

_PREFIX = "params/"
#: Number of seeds that the random generator of Optuna's sampler has.
_SEEDS = 2**32
#: Proposals of known configurations in a row after which a search space counts as exhausted.
_MAX_REPEATS = 100


def optuna_distributions(search: SearchSpace) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of each searched parameter."""
    return {name: _distribution(space) for name, space in search.parameters.items()}


def _distribution(space: Range | Choices) -> BaseDistribution:
    if isinstance(space, Choices):
        return CategoricalDistribution(space.choices)
    if space.integer:
        return IntDistribution(int(space.low), int(space.high), log=space.log)
    return FloatDistribution(space.low, space.high, log=space.log)


class NewConfigurations(Searcher):
    """Optuna's TPE sampler, initialised with the ended trials; never proposes one of them again.

    It first proposes the interrupted configurations. In a new study it first proposes the
    selector's default configuration, if the search space contains it.
    """

    def __init__(self, trials: SearchTrials) -> None:
        super().__init__(metric=SCORE, mode="max")
        self._trials = trials
        self._search = trials.study.spec.search
        space = optuna_distributions(self._search)
        records = trials.of(self._search.selector)
        interrupted = [
            searched_params(record.spec.params, space)
            for record in records
            if record.outcome not in ENDED
        ]
        first = interrupted if records else _default_point(trials, space)
        self._optuna = OptunaSearch(
            space={_PREFIX + name: distribution for name, distribution in space.items()},
            metric=SCORE,
            mode="max",
            points_to_evaluate=[_prefixed(point) for point in first],
            # After a resume the proposals differ from those of an uninterrupted search.
            sampler=optuna.samplers.TPESampler(
                seed=(trials.study.spec.seed + len(records)) % _SEEDS
            ),
        )
        #: What Tune said last of each trial that has ended, by digest.
        self._results: dict[str, dict[str, Any] | None] = {}
        for record in records:
            if record.outcome in ENDED:
                point = _prefixed(searched_params(record.spec.params, space))
                score = FAILED_SCORE if record.score is None else record.score
                self._optuna.add_evaluated_point(point, score)
                self._results[record.digest] = {SCORE: score}
        #: Optuna's id and the digest of each running trial, by the id that Tune gave it.
        self._running: dict[str, tuple[str, str]] = {}
        self._n_proposals = 0
        self._repeated: tuple[str, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune writes its searcher to disk, and mmlab never reads it back."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """Propose a configuration.

        None while the proposal of Optuna is running in another trial, ``Searcher.FINISHED`` if
        Optuna has nothing new.
        """
        for _ in range(_MAX_REPEATS):
            if self._repeated is not None and not self._tell_repeated():
                return None
            self._n_proposals += 1
            proposal = str(self._n_proposals)
            config: Any = self._optuna.suggest(proposal)
            params = self._search.fixed | config["params"]
            _, digest = self._trials.identify(self._search.selector, params)
            running = {of_running for _, of_running in self._running.values()}
            if digest not in running and digest not in self._results:
                self._running[trial_id] = (proposal, digest)
                return config
            self._repeated = (proposal, digest)
        return Searcher.FINISHED

    def _tell_repeated(self) -> bool:
        """Tell Optuna the score of a configuration that it repeated; False if it has none yet."""
        assert self._repeated is not None
        proposal, digest = self._repeated
        if digest not in self._results:
            return False
        self._tell(proposal, self._results[digest])
        self._repeated = None
        return True

    def _tell(self, proposal: str, result: dict[str, Any] | None) -> None:
        self._optuna.on_trial_complete(proposal, result, error=result is None)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna the score of a trial; it learns nothing from one that failed or was lost."""
        if trial_id in self._running:
            proposal, digest = self._running.pop(trial_id)
            self._results[digest] = None if error else result
            self._tell(proposal, self._results[digest])

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: mmlab resumes a search from the tracking store."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing, see :meth:`save`."""


class WarmStartASHA(ASHAScheduler):
    """Asynchronous successive halving whose rungs contain the scores of the ended trials."""

    def __init__(self, trials: SearchTrials, max_epochs: int) -> None:
        search = trials.study.spec.search
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
        records = trials.of(search.selector)
        counted = ENDED if Outcome.COMPLETE in {record.outcome for record in records} else ()
        for record in (record for record in records if record.outcome in counted):
            ended_trial: Any = SimpleNamespace(trial_id=record.digest)
            for epoch, score in trials.history(record):
                self._brackets[0].on_result(ended_trial, epoch, score)


def searched_params(
    params: dict[str, Scalar], space: dict[str, BaseDistribution]
) -> dict[str, Scalar]:
    """Return the searched parameters of a trial."""
    return {name: params[name] for name in space}


def _prefixed(point: dict[str, Scalar]) -> dict[str, Scalar]:
    return {_PREFIX + name: value for name, value in point.items()}


def _default_point(
    trials: SearchTrials, space: dict[str, BaseDistribution]
) -> list[dict[str, Scalar]]:
    """Return the default configuration as a list of one; empty if it is outside the space."""
    search = trials.study.spec.search
    default, _ = trials.identify(search.selector, search.fixed)
    defaults = searched_params(default.params, space)
    inside = all(_contains(search.parameters[name], value) for name, value in defaults.items())
    return [defaults] if inside else []


def _contains(space: Range | Choices, value: Any) -> bool:
    if isinstance(space, Choices):
        return value in space.choices
    return not isinstance(value, str) and bool(space.low <= value <= space.high)
