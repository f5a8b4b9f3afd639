"""The early stopping of a search, and the best score in its progress lines."""

from __future__ import annotations

import math
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mmlab.schedule import search_algorithm
from mmlab.schedule.progress import SearchProgress, TrialProgress
from mmlab.spec.search import SearchSpace
from mmlab.tracking import Outcome


def test_best_score_of_a_search_counts_complete_trials_only_and_never_decreases() -> None:
    output = StringIO()
    ends = [(Outcome.STOPPED, 0.9), (Outcome.COMPLETE, 0.7), (Outcome.COMPLETE, 0.8)]
    ends += [(Outcome.STOPPED, 0.95), (Outcome.COMPLETE, 0.6)]
    with SearchProgress(Console(file=output, width=200), "search", total=5) as progress:
        for number, (outcome, score) in enumerate(ends):
            key = str(number)
            progress.update(key, TrialProgress(key, "random", Outcome.RUNNING, 1, score, {}))
            progress.end(key, outcome)
    lines = output.getvalue().splitlines()[1:]
    assert [line.partition(", best ")[2][:6] for line in lines] == ["", "0.7000", *["0.8000"] * 3]


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
        SimpleNamespace(run_id=name, outcome=outcome) for name, outcome in outcomes.items()
    ]
    histories = {
        "stopped": [(10, 0.3)],
        "interrupted": [(10, 0.9), (20, 0.95)],
        "complete": [(10, 0.4), (20, 0.5), (40, 0.6)],
    }
    search = SearchSpace(
        selector="markermap_supervised", parameters={"beta": {"low": 0.8, "high": 0.9}}
    )
    study: Any = SimpleNamespace(
        spec=SimpleNamespace(search=search),
        score_history=lambda record, name: histories[record.run_id],
    )
    scheduler = search_algorithm.WarmStartASHA(study, 60, records)
    recorded = {int(epoch): dict(scores) for epoch, scores in scheduler._brackets[0]._rungs}
    if complete:
        assert recorded == {
            10: {"stopped": 0.3, "complete": 0.4},
            20: {"complete": 0.5},
            40: {"complete": 0.6},
        }
    else:
        assert recorded == {10: {}, 20: {}, 40: {}}
