"""One driver at a time: studies whose driver is on another machine, hung, gone or back."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import DataSpec
from mmlab.tracking import Outbox, StudyRun, TrackingStore, create_study, lease, outbox, run_owner
from mmlab.tracking.study_run import claim_study

COMPARISON = ComparisonSpec(
    data=DataSpec(name="tiny"), methods=["random"], n_markers=[5], replicates=1
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrackingStore:
    monkeypatch.setattr(lease, "_PATIENCE", 1.0)
    monkeypatch.setattr(lease, "_PAUSE", 0.05)
    monkeypatch.setattr(outbox, "HEARTBEAT_INTERVAL", 0.1)
    monkeypatch.setattr(outbox, "_EPOCH_INTERVAL", 0.05)
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    return store


@pytest.fixture
def study(store: TrackingStore, tiny_cells: Cells) -> StudyRun[ComparisonSpec]:
    return create_study(store, "study", COMPARISON, tiny_cells, {}, "")


def move(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Go on as a process on another machine."""
    monkeypatch.setattr(run_owner.socket, "gethostname", lambda: host)


def tags(study: StudyRun[Any]) -> dict[str, str]:
    return dict(study.store.client.get_run(study.run_id).data.tags)


def test_a_silent_driver_on_another_machine_is_replaced(
    study: StudyRun[ComparisonSpec],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its heartbeats may lie in the future of this machine's clock."""
    future = {run_owner.HEARTBEAT: f"{time.time() + 9e5:.2f}"}
    study.store.set_tags(study.run_id, future)
    first = run_owner.owner_name(tags(study))
    move(monkeypatch, "second")
    claim_study(study)
    assert tags(study)["mmlab.host"] == "second"
    assert tags(study)["mmlab.attempt"] == "2"
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert f"study study was not closed by {first}: waiting up to 1 s" in record.getMessage()


@pytest.mark.parametrize("offset", [-9e5, 0, 9e5])
def test_a_driver_on_another_machine_that_sends_heartbeats_is_not_replaced(
    study: StudyRun[ComparisonSpec], monkeypatch: pytest.MonkeyPatch, offset: float
) -> None:
    """Whatever the clocks say."""
    before = tags(study)
    stop = threading.Event()

    def send() -> None:
        at = {run_owner.HEARTBEAT: f"{time.time() + offset:.2f}"}
        study.store.set_tags(study.run_id, at)

    def live() -> None:
        while not stop.wait(0.1):
            send()

    send()
    driver = threading.Thread(target=live)
    driver.start()
    move(monkeypatch, "second")
    try:
        with pytest.raises(UserError, match=f"already running in process {before['mmlab.pid']} on"):
            claim_study(study)
    finally:
        stop.set()
        driver.join()
    assert tags(study)["mmlab.host"] == before["mmlab.host"]


def test_a_closed_study_is_claimed_at_once(
    study: StudyRun[ComparisonSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_is_silent", lambda *_: pytest.fail("it waits"))
    study.finish(complete=False)
    move(monkeypatch, "second")
    claim_study(study)
    assert tags(study)["mmlab.attempt"] == "2"


def test_a_driver_that_comes_back_stops_and_sends_nothing(
    study: StudyRun[ComparisonSpec], tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[str] = []
    sent: list[str] = []
    with Outbox(study, tiny_cells, lost.append) as box:
        deadline = time.monotonic() + 10
        started = tags(study)[run_owner.HEARTBEAT]
        while tags(study)[run_owner.HEARTBEAT] == started:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not box.last_error
        # The other machine takes the study over while this process hangs.
        other = tags(study) | {"mmlab.host": "second", "mmlab.pid": "7"}
        keys = ("mmlab.host", "mmlab.pid")
        study.store.set_tags(study.run_id, {key: other[key] for key in keys})
        while not lost:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        monkeypatch.setattr(TrackingStore, "set_tags", lambda *_: sent.append("tags"))
        time.sleep(0.5)
    assert lost == ["Study study was taken over by process 7 on second."] == [box.last_error]
    assert not sent


def test_a_study_that_two_machines_create_at_once_is_refused(
    store: TrackingStore, study: StudyRun[ComparisonSpec], tiny_cells: Cells
) -> None:
    with pytest.raises(UserError, match="study study was created by another process at the same"):
        create_study(store, "study", COMPARISON, tiny_cells, {}, "")
    assert [run.info.run_id for run in store.search({"mmlab.kind": "study"})] == [study.run_id]
