"""Damaged files of mmlab's own: set aside and named; what was in them is computed again."""

from __future__ import annotations

from pathlib import Path

import pytest
from ended_trials import complete_trial

from mmlab.datasets.cells import Cells
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import DataSpec
from mmlab.tracking import (
    MethodRun,
    Outbox,
    StudyRun,
    TrackingStore,
    TrialRun,
    create_study,
    find_finished_replicates,
)
from mmlab.trial.outcome import Outcome
from mmlab.trial.result import TrialResult
from mmlab.trial.run import run_trial

COMPARISON = ComparisonSpec(
    data=DataSpec(name="tiny"), methods=["scanpy_t_test"], n_markers=[5], replicates=1
)


@pytest.fixture(scope="module")
def result(tiny_cells: Cells) -> TrialResult:
    method, (setting,) = COMPARISON.methods[0], COMPARISON.settings
    return run_trial(COMPARISON.trial(method, setting, 0), tiny_cells)


@pytest.fixture
def study(tmp_path: Path, tiny_cells: Cells) -> StudyRun:
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    return create_study(store, "damage", COMPARISON, tiny_cells, {}, "")


@pytest.mark.parametrize("damage", ["", "{", '{"digest": "x"}', '{"result": 7, "spec": {}}', "[]"])
def test_a_damaged_unsent_trial_is_set_aside_and_the_others_are_sent(
    damage: str,
    study: StudyRun,
    tiny_cells: Cells,
    result: TrialResult,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = Path(Outbox(study, tiny_cells).unsent.place)
    broken = folder / ("0" * 64 + ".json")
    broken.write_text(damage)
    outbox = Outbox(study, tiny_cells)
    outbox.put(complete_trial(study, result))
    assert [trial.digest for trial in outbox.unsent.all()] == [result.digest]
    assert f"{broken}, is damaged: moved to {broken.name}.damaged-" in caplog.text
    with outbox:
        assert outbox.drain(30) == 0, outbox.last_error
    (trial,) = study.trials()
    assert (trial.digest, trial.outcome) == (result.digest, Outcome.COMPLETE)
    (aside,) = folder.iterdir()
    assert aside.read_text() == damage


def test_a_trial_that_is_damaged_while_the_study_runs_does_not_stop_the_sending(
    study: StudyRun, tiny_cells: Cells, result: TrialResult
) -> None:
    names = ["broken.json", "gone.json"]
    folder = Path(Outbox(study, tiny_cells).unsent.place)
    for name in names:
        (folder / name).write_text("{}")
    outbox = Outbox(study, tiny_cells)
    assert len(outbox.unsent) == 2
    (folder / "gone.json").unlink()
    with outbox:
        (folder / "broken.json").write_bytes(b"\xff\xfe")
        outbox.put(complete_trial(study, result))
        assert outbox.drain(30) == 0, outbox.last_error
    assert [trial.digest for trial in study.trials()] == [result.digest]


def test_damaged_artifacts_are_left_out(
    study: StudyRun, tiny_cells: Cells, result: TrialResult, caplog: pytest.LogCaptureFixture
) -> None:
    method = MethodRun.open(study, study.spec.methods[0])
    parent = (study.name, method.run_id)
    run = TrialRun.create(
        study.store, study.experiment_id, result.spec, result.digest, tiny_cells, parent
    )
    run.add_result(result, at_ms=1)
    run.close(Outcome.COMPLETE)
    wanted = (study.store, study.experiment_id, {result.digest})
    assert [digest for digest, _ in find_finished_replicates(*wanted)] == [result.digest]
    (file,) = study.store.folder.rglob(f"{run.run_id}/artifacts/replicates.parquet")
    for damage in (b"PAR1", file.read_bytes()[:-20]):
        file.write_bytes(damage)
        assert list(find_finished_replicates(*wanted)) == []
        assert f"of run {run.run_id} is missing or damaged" in caplog.text
    file.unlink()
    assert list(find_finished_replicates(*wanted)) == []
