"""The folder of an SQLite store is moved or copied: its artifacts are found in the new one only."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from commands import call

import mmlab
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.model import fit_model
from mmlab.preprocessing.splits import replicate_split
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.tracking import TrackingStore
from mmlab.tracking.finished_replicates import read_replicates
from mmlab.tracking.model_registry import register_model, set_champion
from mmlab.trial.run import run_trial

SPEC = TrialSpec(data=DataSpec(name="tiny"), selector="scanpy_t_test", n_markers=6)
SELECT = ["select", "--dataset", "pbmc68k_reduced", "--method", "random", "-k", "5", "--json"]
#: Characters that a URI escapes.
OLD, NEW = "Project #1 100 % é", "new project"


def store_in(folder: Path) -> TrackingStore:
    return TrackingStore(f"sqlite:///{folder}/mlflow.db")


def files(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder by their path in it; the log of the database is left out."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {path: content for path, content in found.items() if not path.endswith(("-wal", "-shm"))}


def select(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run `mmlab select` in a folder, and return the id of its run."""
    monkeypatch.chdir(folder)
    result = call(*SELECT)
    assert result.exit_code == 0, result.output
    return str(json.loads(result.stdout)["run_id"])


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, tiny_cells: Cells) -> Path:
    """A folder in which `mmlab select` ran, with a registered champion; tests only read it."""
    folder = tmp_path_factory.mktemp("stores") / OLD
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        select(folder, patch)
    store = store_in(folder)
    result = run_trial(SPEC, tiny_cells)
    panel = result.panel["gene_index"].to_numpy(dtype=np.int64)
    about = {"dataset": "tiny", "fingerprint": tiny_cells.fingerprint}
    model = fit_model(panel, tiny_cells, replicate_split(SPEC, tiny_cells, 0), about)
    run_id = store.create_run(store.experiment("tiny"), "promotion", {})
    champion = register_model(store, run_id, model, SPEC, result.digest, "search")
    set_champion(store, "tiny", champion)
    store.close(run_id, "FINISHED")
    return folder


@pytest.fixture
def new(old: Path, tmp_path: Path) -> Path:
    """A copy of the folder."""
    return Path(shutil.copytree(old, tmp_path / NEW))


def check_locations(folder: Path, n_runs: int) -> None:
    """Check that all artifact locations in a store are below its folder, and that files are there.

    Among the ``n_runs`` runs is one promotion; the others are trials.
    """
    store = store_in(folder)
    experiments = store.client.search_experiments()
    runs = store.client.search_runs([e.experiment_id for e in experiments])
    locations = [run.info.artifact_uri for run in runs]
    locations += [e.artifact_location for e in experiments if e.name != "Default"]
    locations += [version.source for version in store.client.search_model_versions()]
    assert len(locations) == n_runs + 2 + 1
    assert all(str(uri).startswith(f"{folder.as_uri()}/mlartifacts/") for uri in locations)
    trials = [r.info.run_id for r in runs if r.data.tags.get("mmlab.kind") == "trial"]
    assert len(trials) == n_runs - 1
    assert all(read_replicates(store, trial) is not None for trial in trials)


def test_a_copied_and_then_moved_folder_is_used_alone(
    old: Path, new: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = files(old)
    select(new, monkeypatch)
    assert mmlab.load_champion("tiny", 6).markers
    assert caplog.text.count("\n") == 1, caplog.text
    assert f"store {new}/mlflow.db was moved or copied here from {old}: its art" in caplog.text
    check_locations(new, 3)
    assert files(old) == before

    moved = new.rename(new.parent / OLD)
    select(moved, monkeypatch)
    assert mmlab.load_champion("tiny", 6).markers
    assert f"store {moved}/mlflow.db was moved or copied here from {new}: its" in caplog.text
    check_locations(moved, 4)
    assert not new.exists()
    assert files(old) == before
    store_in(old).require_reachable()
    check_locations(old, 2)


def test_another_name_of_the_same_folder_is_no_move(
    old: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link = tmp_path / "link"
    link.symlink_to(old)
    before = files(old)["mlflow.db"]
    store_in(link).require_reachable()
    assert not caplog.text
    assert files(old)["mlflow.db"] == before


def test_artifacts_that_stayed_behind_are_named(old: Path, new: Path) -> None:
    shutil.rmtree(new / "mlartifacts")
    before = files(old)
    sentence = (
        f"from {old}, but the artifacts of 2 of its runs are in {old}/mlartifacts alone. Copy the "
        f"contents of that folder to {new}/mlartifacts, then run the command again."
    )
    with pytest.raises(UserError) as error:
        store_in(new).require_reachable()
    assert str(error.value).endswith(sentence)
    shutil.copytree(old / "mlartifacts", new / "mlartifacts")
    store_in(new).require_reachable()
    check_locations(new, 2)
    assert files(old) == before


def test_a_store_that_another_machine_uses_is_left_as_it_is(new: Path) -> None:
    """A container sees the folder under another path; its heartbeats are in the database."""
    store = store_in(new)
    tags = {"mmlab.host": "container", "mmlab.pid": "7", "mmlab.alive_at": f"{time.time():.0f}"}
    (experiment,) = store.client.search_experiments(filter_string="name = 'tiny'")
    run_id = store.create_run(experiment.experiment_id, "study", tags)
    with pytest.raises(UserError, match=r"where process 7 on container is writing to it\. Wait"):
        store.require_reachable()
    store.set_tags(run_id, {"mmlab.alive_at": "1"})
    store.require_reachable()
    assert str(store.client.get_run(run_id).info.artifact_uri).startswith(new.as_uri())


def test_unsent_results_come_along(old: Path, new: Path) -> None:
    outbox = store_in(old).study_folder("study") / "outbox"
    outbox.mkdir(parents=True)
    (outbox / "trial.json").write_text("result")
    store_in(new).require_reachable()
    copied = store_in(new).study_folder("study") / "outbox" / "trial.json"
    assert copied.read_text() == "result"


def test_a_moved_database_that_cannot_be_written_is_refused(
    new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmlab.tracking.moved_store._TIMEOUT", 0.1)
    with closing(sqlite3.connect(new / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match=r"cannot be updated: database is locked\. Make the"):
            store_in(new).require_reachable()
    store_in(new).require_reachable()
    check_locations(new, 2)
