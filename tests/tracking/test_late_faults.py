"""A disk that is full, or a store that goes away, after results were computed."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import call, mistake
from ended_trials import complete_trial
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking import MlflowClient
from rich.console import Console

from mmlab import cli
from mmlab.comparison.result_table import ResultFile, make_row, read_rows
from mmlab.datasets.cells import Cells
from mmlab.schedule.rescue import rescue_replicates
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import DataSpec
from mmlab.system.files import atomic_write
from mmlab.tracking import (
    Outbox,
    StudyRun,
    TrackingStore,
    create_study,
)
from mmlab.tracking.local_state import state_folder
from mmlab.trial.result import TrialResult
from mmlab.trial.run import run_trial

COMPARISON = ComparisonSpec(
    data=DataSpec(name="tiny"), methods=["scanpy_t_test"], n_markers=[5], replicates=1
)
SELECT = ["select", "--dataset", "pbmc68k_reduced", "--method", "random", "-k", "5"]


@pytest.fixture(scope="module")
def result(tiny_cells: Cells) -> TrialResult:
    method, (setting,) = COMPARISON.methods[0], COMPARISON.settings
    return run_trial(COMPARISON.trial(method, setting, 0), tiny_cells)


@pytest.fixture
def study(
    tmp_path: Path, tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StudyRun[ComparisonSpec]]:
    monkeypatch.chdir(tmp_path)
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    return create_study(store, "late", COMPARISON, tiny_cells, {}, "")


class FullDisk:
    """Folders on which nothing can be flushed to disk, as on a full one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folders: list[Path] = []
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._refuse)

    def _refuse(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if any(path.is_relative_to(folder) for folder in self.folders):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._fsync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


def test_a_full_disk_names_the_file(disk: FullDisk, tmp_path: Path) -> None:
    disk.folders = [tmp_path]
    with pytest.raises(OSError, match="No space left") as error, atomic_write(tmp_path / "a") as a:
        a.write_text("text")
    assert error.value.filename == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_trial_that_does_not_fit_on_the_disk_is_sent_from_memory(
    disk: FullDisk,
    study: StudyRun[ComparisonSpec],
    tiny_cells: Cells,
    result: TrialResult,
    caplog: pytest.LogCaptureFixture,
) -> None:
    outbox = Outbox(study, tiny_cells)
    disk.folders = [Path(outbox.unsent.place)]
    trial = complete_trial(study, result)
    for _ in range(2):
        outbox.put(trial)
    assert caplog.text.count("\n") == 1
    place = f"written to {outbox.unsent.place} (No space left on device): they are kept"
    assert place in caplog.text
    with outbox:
        assert outbox.drain(30) == 0, outbox.last_error
    assert [trial.digest for trial in study.trials()] == [result.digest]
    console = Console(file=io.StringIO())
    assert not rescue_replicates(study, outbox, ResultFile({}), console)


@pytest.mark.parametrize("given", [True, False])
def test_what_neither_store_nor_disk_takes_is_written_elsewhere(
    given: bool,
    disk: FullDisk,
    study: StudyRun[ComparisonSpec],
    tiny_cells: Cells,
    result: TrialResult,
    tmp_path: Path,
) -> None:
    outbox, console = Outbox(study, tiny_cells), Console(file=io.StringIO())
    disk.folders = [Path(outbox.unsent.place)]
    outbox.put(complete_trial(study, result))
    (replicate,) = result.replicates.to_dict(orient="records")
    row = make_row(result.spec, result.digest, tiny_cells.fingerprint, replicate)
    path = tmp_path / "given.parquet" if given else None
    assert rescue_replicates(study, outbox, ResultFile({result.digest: row}, path), console)
    message = console.file.getvalue()  # type: ignore[attr-defined]
    expected = path or tmp_path / "late.parquet"
    assert message.startswith(f"1 finished trial could not be sent to {study.store.uri}, nor be")
    assert message.endswith(f"are in {expected}: run the same command with --rows {expected}.\n")
    (saved,) = read_rows(expected)
    assert saved["digest"] == result.digest
    assert saved["knn/accuracy"] == replicate["knn/accuracy"]
    # Once there is space, the trial waits on disk as any other.
    disk.folders = []
    assert not rescue_replicates(study, outbox, ResultFile({}), console)
    assert [trial.digest for trial in outbox.unsent.all()] == [result.digest]


def test_a_panel_that_no_disk_takes_is_in_the_message_and_in_the_output(
    disk: FullDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = TrackingStore()
    store.initialise()
    disk.folders = [store.state_folder]

    def refuse(*_: Any, **__: Any) -> None:
        raise MlflowException("database or disk is full")

    monkeypatch.setattr(LocalArtifactRepository, "log_artifacts", refuse)
    text = mistake(*SELECT, "-o", "panel.csv")
    panel = pd.read_csv("panel.csv")["gene"].tolist()
    assert "did not take the result: database or disk is full." in text
    assert text.endswith(f"No space left on device. The panel: {', '.join(panel)}.")
    assert len(panel) == 5


def test_a_store_that_goes_away_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    TrackingStore().initialise()

    def refuse(*_: Any, **__: Any) -> None:
        raise MlflowException("API request failed\nwith a long story.")

    monkeypatch.setattr(MlflowClient, "search_experiments", refuse)
    monkeypatch.setattr(sys, "argv", ["mmlab", "report", "study", "-o", "out"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    printed = capsys.readouterr().err
    start = (
        "Error: the tracking store cannot be used any more: API request failed with a long story"
    )
    assert printed.startswith(f"{start}. What had ended before")
    assert printed.count("\n") == 1


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize(
    "fault", ["results", *(pytest.param(f, marks=pytest.mark.long) for f in ("summary", "end"))]
)
def test_a_store_that_goes_away_at_the_end_of_a_search_keeps_its_trials(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results of trials or the summary cannot be logged, or runs cannot be closed."""
    monkeypatch.chdir(tmp_path)
    options = ["--dataset", "pbmc68k_reduced", "-k", "5", "--replicates", "1"]
    options += ["--epochs", "2", "--trials", "2", "--name", "late"]
    # One after the other, and with this seed, neither trial is stopped early.
    options += ["--seed", "3", "--max-concurrent", "1"]
    working = LocalArtifactRepository.log_artifacts

    def refuse(owner: Any, target: str, *arguments: Any, **options: Any) -> Any:
        names = {path.name for path in Path(target).iterdir()} if fault != "end" else set()
        taken = {"study.json"} if fault == "results" else {"study.json", "panel.csv"}
        if names & taken:
            return working(owner, target, *arguments, **options)
        raise MlflowException("unable to open database file")

    with monkeypatch.context() as patch:
        if fault == "end":
            patch.setattr(MlflowClient, "set_terminated", refuse)
        else:
            patch.setattr(LocalArtifactRepository, "log_artifacts", refuse)
        done = call("tune", *options)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    last = done.stderr.strip().splitlines()[-1]
    if fault == "summary":
        assert str(done.exception) == (
            "study late stopped, because it could not be written to the end: unable to open "
            f"database file. Its ended trials are kept in {store}, or on this machine. When this "
            "store can be written again, go on with: mmlab tune --resume late."
        )
    else:
        assert done.exit_code == 75
        assert last.startswith(
            f"2 finished trials could not be sent to {store}: kept in {state_folder(store)}/late/"
            "outbox; when it answers again, send what is kept with: "
        )
        assert "First markers: " in done.stdout
    resumed = call("tune", "--resume", "late", "--json")
    assert resumed.exit_code == 0, resumed.output
    assert "late: 0 of 2 trials to do" in resumed.stderr
    content = json.loads(resumed.stdout)
    assert content["unsent"] == 0
    assert [trial["status"] for trial in content["trials"]].count("complete") >= 1
    assert len(content["trials"]) == 2
    assert len(content["best"]["panel"]) == 5
    runs = TrackingStore().search({"mmlab.study": "late"})
    assert "RUNNING" not in {run.info.status for run in runs}
