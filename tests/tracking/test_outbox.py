"""What the driver of a search sends to the tracking store: epochs while trials run, and their end.

Comparisons are in test_damage.py and test_late_faults.py.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mmlab.datasets.cells import Cells
from mmlab.spec.search import SearchSpace, SearchSpec
from mmlab.spec.trial import DataSpec
from mmlab.tracking import EndedTrial, Outbox, StudyRun, TrackingStore, create_study
from mmlab.tracking import outbox as outbox_module
from mmlab.trial.outcome import Outcome
from mmlab.trial.result import TrialResult
from mmlab.trial.run import run_trial

SEARCH = SearchSpec(
    data=DataSpec(name="tiny"),
    search=SearchSpace(
        selector="markermap_supervised", parameters={"beta": {"choices": [0.5, 0.9]}}
    ),
    trials=2,
    n_markers=3,
    replicates=1,
)


@pytest.fixture(scope="module")
def result(tiny_cells: Cells) -> TrialResult:
    return run_trial(SEARCH.trial("markermap_supervised", {"max_epochs": 4}), tiny_cells)


@pytest.fixture
def study(tmp_path: Path, tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch) -> StudyRun[Any]:
    monkeypatch.setattr(outbox_module, "_EPOCH_INTERVAL", 0.05)
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    return create_study(store, "search", SEARCH, tiny_cells, {}, "")


def epochs(result: TrialResult) -> list[Any]:
    return result.history.to_dict(orient="records")


def ended(study: StudyRun[Any], result: TrialResult, outcome: Outcome, n: int) -> EndedTrial:
    """Return the trial with its result if it is complete, else with its first ``n`` epochs."""
    complete = outcome == Outcome.COMPLETE
    return EndedTrial(
        result.spec,
        result.digest,
        study.run_id,
        outcome,
        result if complete else None,
        "" if complete else "poor",
        100_000,
        [] if complete else epochs(result)[:n],
        60.0,
    )


def history(study: StudyRun[Any], metric: str) -> list[tuple[int, float]]:
    (record,) = study.trials()
    return study.score_history(record, metric)


def wait_for_epochs(study: StudyRun[Any], n: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if study.trials() and len(history(study, "epoch")) == n:
            return
        time.sleep(0.05)
    raise AssertionError(f"{n} epochs did not arrive")


@pytest.mark.parametrize("outcome", [Outcome.COMPLETE, Outcome.STOPPED])
def test_every_epoch_is_in_the_store_once(
    study: StudyRun[Any], tiny_cells: Cells, result: TrialResult, outcome: Outcome
) -> None:
    rows = epochs(result)
    assert len(rows) == 4
    outbox = Outbox(study, tiny_cells)
    with outbox:
        for row in rows[:2]:
            outbox.report(result.spec, result.digest, study.run_id, row, 60.0)
        wait_for_epochs(study, 2)
        assert study.trials()[0].outcome == Outcome.RUNNING
        # A trial whose worker died starts again.
        for row in rows[:3]:
            outbox.report(result.spec, result.digest, study.run_id, row, 60.0)
        wait_for_epochs(study, 3)
        for _ in range(2):
            outbox.put(ended(study, result, outcome, 3))
        assert outbox.drain() == 0, outbox.last_error
    n = 4 if outcome == Outcome.COMPLETE else 3
    expected = [(int(row["epoch"]), row["validation/score"]) for row in rows[:n]]
    assert history(study, "validation/score") == expected
    # The final score of a complete trial is that of its last epoch.
    assert sorted(set(history(study, "score"))) == expected
    (record,) = study.trials()
    assert record.outcome == outcome
    assert record.score == expected[-1][1]
    # What the driver knows of the trial is what the store has.
    known = ended(study, result, outcome, n).record()
    assert (known.outcome, known.score, known.spec) == (record.outcome, record.score, record.spec)
    assert known.metrics == {name: record.metrics[name] for name in known.metrics}


def test_a_trial_costs_five_requests_and_its_run_lasts_as_long(
    study: StudyRun[Any],
    tiny_cells: Cells,
    result: TrialResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials = [ended(study, result, Outcome.COMPLETE, 0)]
    # The first complete trial is the best so far and has figures; the others have none.
    trials += [replace(trials[0], digest=f"{n:064}") for n in range(3)]
    requests: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            requests[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(owner, name, counted)

    with Outbox(study, tiny_cells) as outbox:
        outbox.put(trials[0])
        assert outbox.drain() == 0, outbox.last_error
        for name in ("create_run", "get_run", "log_batch", "log_inputs", "search_runs", "set_tag"):
            count(SqlAlchemyStore, name)
        count(SqlAlchemyStore, "update_run_info")
        # The files of a local store are copied; to a server each is sent in a request.
        count(shutil, "copy2")
        for trial in trials[1:]:
            outbox.put(trial)
        assert outbox.drain() == 0, outbox.last_error
    assert requests == {"create_run": 3, "log_batch": 3, "update_run_info": 3, "copy2": 2 * 3}
    for run in study.store.search({"mmlab.kind": "trial"}):
        assert (run.info.start_time, run.info.end_time) == (40_000, 100_000)
        assert run.info.status == "FINISHED"
        assert run.data.params["selector"] == "markermap_supervised"
        assert run.data.tags["mmlab.outcome"] == Outcome.COMPLETE


def test_a_trial_survives_a_store_that_is_away_and_the_end_of_the_process(
    study: StudyRun[Any],
    tiny_cells: Cells,
    result: TrialResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = ended(study, result, Outcome.STOPPED, 2)

    def refuse(*_: Any, **__: Any) -> None:
        raise MlflowException("away")

    with monkeypatch.context() as patch:
        patch.setattr(TrackingStore, "log", refuse)
        with Outbox(study, tiny_cells) as outbox:
            outbox.report(result.spec, result.digest, study.run_id, epochs(result)[0], 60.0)
            outbox.put(stopped)
            assert outbox.drain(2) == 1
            assert "away" in outbox.last_error
    with Outbox(study, tiny_cells) as outbox:
        assert outbox.unsent.all() == [stopped]
        assert outbox.drain() == 0, outbox.last_error
    assert history(study, "epoch") == [(1, 1.0), (2, 2.0)]
    (record,) = study.trials()
    assert (record.outcome, record.reason) == (Outcome.STOPPED, "poor")


def test_a_trial_whose_record_is_damaged_keeps_its_run(
    study: StudyRun[Any], tiny_cells: Cells, result: TrialResult
) -> None:
    for outcome in (Outcome.STOPPED, Outcome.COMPLETE):
        with Outbox(study, tiny_cells) as outbox:
            outbox.put(ended(study, result, outcome, 2))
            assert outbox.drain() == 0, outbox.last_error
        (run,) = study.store.search({"mmlab.kind": "trial"})
        study.store.set_tags(run.info.run_id, {"mmlab.spec": "{"})
    assert run.data.tags["mmlab.outcome"] == Outcome.COMPLETE


def test_files_of_versions_without_outcome_are_read(
    study: StudyRun[Any], result: TrialResult
) -> None:
    for outcome in (Outcome.COMPLETE, Outcome.FAILED):
        text = ended(study, result, outcome, 0).to_json()
        old = text.replace(f'"outcome": "{outcome}", ', "").replace(', "unfinished": []', "")
        assert "outcome" not in old
        assert "unfinished" not in old
        assert EndedTrial.from_json(old).outcome == outcome
