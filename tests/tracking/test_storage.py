"""Storage that outlives a machine: what waits in it is found from any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import mistake
from ended_trials import complete_trial

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import DataSpec
from mmlab.tracking import Outbox, StudyRun, TrackingStore, create_study, find_old_studies
from mmlab.tracking.storage import STORAGE_TAG, Files, check_storage, files_in_storage
from mmlab.trial.result import TrialResult
from mmlab.trial.run import run_trial

COMPARISON = ComparisonSpec(
    data=DataSpec(name="tiny"), methods=["scanpy_t_test"], n_markers=[5], replicates=1
)

UNREACHABLE = "s3://bucket?endpoint_override=127.0.0.1:9&scheme=http"


@pytest.fixture(scope="module")
def result(tiny_cells: Cells) -> TrialResult:
    method, (setting,) = COMPARISON.methods[0], COMPARISON.settings
    return run_trial(COMPARISON.trial(method, setting, 0), tiny_cells)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def study(uri: str, tiny_cells: Cells) -> StudyRun[Any]:
    store = TrackingStore(uri)
    store.initialise()
    return create_study(store, "a study", COMPARISON, tiny_cells, {}, "")


def with_storage(study: StudyRun[Any], storage: str) -> StudyRun[Any]:
    """Return the study as a process with this --storage opens it."""
    store = TrackingStore(study.store.connection_uri, storage)
    return StudyRun(store, study.name, study.run_id, study.experiment_id, study.spec)


def test_what_waits_is_moved_to_the_storage_and_found_from_another_machine(
    study: StudyRun[Any],
    tiny_cells: Cells,
    result: TrialResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = str(tmp_path / "shared")
    local = Outbox(study, tiny_cells)
    local.put(complete_trial(study, result))
    moved = Outbox(with_storage(study, shared), tiny_cells)
    assert moved.unsent.place.startswith(f"{shared}/")
    assert [trial.digest for trial in moved.unsent.all()] == [result.digest]
    assert list(Path(local.unsent.place).iterdir()) == []
    # The machine is lost. Another one needs no option to find the storage.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    study.finish(complete=False)
    (old,) = find_old_studies(study.store, [study.name])
    assert old.reason == "results of it are still to be sent: resume it first"
    study.store.set_tags(study.run_id, {STORAGE_TAG: UNREACHABLE})
    (old,) = find_old_studies(study.store, [study.name])
    assert old.reason.startswith(f"{UNREACHABLE} may have results of it, but cannot be read: ")
    study.store.set_tags(study.run_id, {STORAGE_TAG: shared})
    with Outbox(with_storage(study, ""), tiny_cells) as outbox:
        assert outbox.unsent.place == moved.unsent.place
        assert outbox.drain() == 0, outbox.last_error
    (trial,) = study.trials()
    assert trial.digest == result.digest
    assert list(Path(moved.unsent.place).iterdir()) == []


def test_files_are_listed_oldest_first(tmp_path: Path) -> None:
    files: Files = files_in_storage(str(tmp_path), "a", "b")
    assert files.names() == []
    files.create()
    for name in ("z.json", "a.json", "m.txt"):
        files.write(name, "é")
    assert files.names() == ["z.json", "a.json"]
    assert files.read("z.json") == "é"
    files.remove("z.json")
    assert files.names() == ["a.json"]


def test_a_storage_has_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_storage("results") == str(tmp_path / "results")
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("gs://bucket/path", r"must be a folder, or s3://BUCKET/PATH with"),
        ("s3:///path", r"must be a folder, or s3://BUCKET/PATH with"),
        ("s3://bucket/path?key=x", r"parameters endpoint_override, region, scheme"),
        ("s3://key:secret@bucket/path", r"must have no password"),
        (UNREACHABLE, r"cannot be written: .*onnect"),
        ("file", r"file cannot be written: "),
        ("/proc/none", r"/proc/none cannot be written: "),
    ],
)
def test_a_storage_that_is_none(
    storage: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x" * 8)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=message) as raised:
        check_storage(storage)
    assert "secret" not in str(raised.value)


def test_the_option_is_checked_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLAB_STORAGE", "/proc/none")
    for command in ("benchmark", "tune"):
        assert "--storage /proc/none cannot be written" in mistake(
            command, "--dataset", "pbmc68k_reduced"
        )
    assert list(tmp_path.iterdir()) == []
