"""The early stopping of a search."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

from mmlab.datasets.cells import Cells
from mmlab.schedule import search_algorithm
from mmlab.schedule.search_trials import SearchTrials
from mmlab.spec.search import SearchSpace, SearchSpec
from mmlab.spec.trial import DataSpec
from mmlab.tracking import EndedTrial, TrackingStore, create_study
from mmlab.trial.outcome import ENDED, Outcome


@pytest.mark.parametrize("max_epochs", [1, 2, 3, 4, 10, 21, 60, 100])
@pytest.mark.parametrize(("first", "factor"), [(10, 2.0), (1, 3.0), (30, 2.5), (7, 1.5)])
def test_rungs_of_the_search_space_are_those_of_the_scheduler(
    max_epochs: int, first: int, factor: float
) -> None:
    search = SearchSpace(
        selector="markermap_supervised",
        parameters={"beta": {"low": 0.8, "high": 0.9}},
        min_epochs_before_stop=first,
        reduction_factor=factor,
    )
    rungs = search.rungs(max_epochs)
    # Imported through mmlab.schedule, which sets environment variables before it imports Ray.
    scheduler = search_algorithm.ASHAScheduler(
        grace_period=rungs[0], max_t=max(max_epochs - 1, rungs[0]), reduction_factor=factor
    )
    assert rungs == [math.ceil(epoch) for epoch, _ in reversed(scheduler._brackets[0]._rungs)]
    assert all(epoch < max_epochs or max_epochs == 1 for epoch in rungs)


@pytest.mark.parametrize("complete", [True, False])
def test_rungs_contain_ended_trials_if_one_is_complete_but_no_interrupted_ones(
    complete: bool,
) -> None:
    """Old scores must not stop all trials of a resumed search.

    An interrupted trial runs again; a stopped one may have lost against an interrupted one.
    """
    outcomes = {"stopped": Outcome.STOPPED, "interrupted": Outcome.INTERRUPTED}
    outcomes |= {"complete": Outcome.COMPLETE} if complete else {}
    records: Any = [
        SimpleNamespace(digest=name, outcome=outcome) for name, outcome in outcomes.items()
    ]
    histories = {
        "stopped": [(10, 0.3)],
        "interrupted": [(10, 0.9), (20, 0.95)],
        "complete": [(10, 0.4), (20, 0.5), (40, 0.6)],
    }
    search = SearchSpace(
        selector="markermap_supervised", parameters={"beta": {"low": 0.8, "high": 0.9}}
    )
    trials: Any = SimpleNamespace(
        study=SimpleNamespace(spec=SimpleNamespace(search=search)),
        of=lambda selector: records,
        history=lambda record: histories[record.digest],
    )
    scheduler = search_algorithm.WarmStartASHA(trials, 60)
    recorded = {int(epoch): dict(scores) for epoch, scores in scheduler._brackets[0]._rungs}
    if complete:
        assert recorded == {
            10: {"stopped": 0.3, "complete": 0.4},
            20: {"complete": 0.5},
            40: {"complete": 0.6},
        }
    else:
        assert recorded == {10: {}, 20: {}, 40: {}}


@pytest.fixture
def trials(tmp_path: Path, tiny_cells: Cells) -> SearchTrials:
    """The trials of a new search of two configurations."""
    search = SearchSpace(
        selector="markermap_supervised", parameters={"beta": {"choices": [0.5, 0.9]}}
    )
    spec = SearchSpec(data=DataSpec(name="tiny"), search=search, trials=9, n_markers=3)
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    study = create_study(store, "search", spec, tiny_cells, {}, "")
    return SearchTrials(study, tiny_cells, [])


def beta(config: Any) -> float:
    return float(config["params"]["beta"])


def test_a_configuration_is_proposed_once(trials: SearchTrials) -> None:
    """Optuna draws from two configurations again and again; it learns the scores of both."""
    searcher = search_algorithm.NewConfigurations(trials)
    first, second = searcher.suggest("a"), None
    second = searcher.suggest("b")
    while second is None or second == searcher.FINISHED:
        second = searcher.suggest("b")
    assert {beta(first), beta(second)} == {0.5, 0.9}
    # Both run: whatever Optuna proposes has to wait for a score.
    assert [searcher.suggest("c") for _ in range(5)] == [None] * 5
    searcher.on_trial_complete("a", {"score": 0.7})
    searcher.on_trial_complete("b", {"score": 0.8})
    assert searcher.suggest("d") == searcher.FINISHED
    told = searcher._optuna._ot_study.get_trials(states=[TrialState.COMPLETE])
    scores = {trial.params["params/beta"]: trial.value for trial in told}
    assert scores == {beta(first): 0.7, beta(second): 0.8}


def test_a_resumed_search_proposes_what_was_interrupted_and_nothing_that_ended(
    trials: SearchTrials,
) -> None:
    ended, parent = {}, trials.study.run_id
    for value, outcome in ((0.5, Outcome.STOPPED), (0.9, Outcome.INTERRUPTED)):
        spec, digest = trials.identify("markermap_supervised", {"beta": value})
        trials.start(spec, digest)
        if outcome == Outcome.STOPPED:
            epochs: Any = [{"epoch": 1, "validation/score": 0.3}]
            trials.end(EndedTrial(spec, digest, parent, outcome, None, "poor", 1, epochs))
            ended[digest] = [(1, 0.3)]
    assert {r.digest: trials.history(r) for r in trials.all() if r.outcome in ENDED} == ended
    searcher = search_algorithm.NewConfigurations(trials)
    assert beta(searcher.suggest("a")) == 0.9
    searcher.on_trial_complete("a", error=True)  # its worker was lost
    assert searcher.suggest("b") == searcher.FINISHED


def test_tune_can_write_its_searcher_to_disk(trials: SearchTrials) -> None:
    content = pickle.dumps(search_algorithm.NewConfigurations(trials))
    assert not vars(pickle.loads(content))


@pytest.mark.parametrize("seed", [2**32 - 1, 2**32 + 4, 2**63 - 1])
def test_every_seed_is_one_of_optuna(trials: SearchTrials, seed: int) -> None:
    """Optuna takes seeds below 2**32; larger ones of mmlab count modulo 2**32."""

    wide = SearchSpace(
        selector="markermap_supervised", parameters={"beta": {"low": 0.1, "high": 0.9}}
    )
    failed: Any = SimpleNamespace(
        outcome=Outcome.FAILED, digest="x", score=None, spec=SimpleNamespace(params={"beta": 0.2})
    )

    def proposals(seed: int, records: list[Any]) -> list[float]:
        study = SimpleNamespace(spec=SimpleNamespace(search=wide, seed=seed))
        same: Any = SimpleNamespace(
            study=study, of=lambda selector: records, identify=trials.identify
        )
        searcher = search_algorithm.NewConfigurations(same)
        return [beta(searcher.suggest(str(i))) for i in range(4)]

    assert proposals(seed, []) == proposals(seed % 2**32, [])
    assert proposals(seed, [failed]) != proposals(seed, [])
    assert proposals(seed, [failed]) == proposals(seed % 2**32, [failed])
