"""`mmlab prune`: old studies go with their artifacts; what is used or promoted stays."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from commands import mistake, run

from mmlab.datasets.cells import Cells
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.tracking import StudyRun, TrackingStore, TrialRun, close_trial, create_study
from mmlab.trial.outcome import Outcome

COMPARISON = ComparisonSpec(
    data=DataSpec(name="tiny"), methods=["random"], n_markers=[5], replicates=1
)
TRIAL = TrialSpec(data=DataSpec(name="tiny"), selector="random", n_markers=5)
_DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> TrackingStore:
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    return store


def age(store: TrackingStore, run_id: str, days: float) -> None:
    """Date the start and end of a run back."""
    at_ms = int((time.time() - days * _DAY) * 1000)
    with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as database, database:
        database.execute(
            "UPDATE runs SET start_time = ?, end_time = ? WHERE run_uuid = ?",
            (at_ms, at_ms, run_id),
        )


def study_of(
    store: TrackingStore, cells: Cells, name: str, days: float, *, ended: bool = True
) -> StudyRun[ComparisonSpec]:
    """Create a study with one trial and an artifact of 1000 bytes, used ``days`` ago."""
    study = create_study(store, name, COMPARISON, cells, {}, "")
    parent = (name, study.run_id)
    trial = TrialRun.create(store, study.experiment_id, TRIAL, f"digest-{name}", cells, parent)
    store.log_files(trial.run_id, lambda f: (f / "table").write_bytes(b"x" * 1000))
    close_trial(store, trial.run_id, Outcome.COMPLETE)
    if ended:
        store.close(study.run_id, "FINISHED")
    for run_id in (study.run_id, trial.run_id):
        age(store, run_id, days)
    return study


def folders(store: TrackingStore) -> dict[str, Path]:
    """Return the artifact folder of every run, by the run's id."""
    return {
        run.info.run_id: Path(unquote(urlsplit(run.info.artifact_uri).path))
        for run in store.search({})
    }


def prune(store: TrackingStore, *arguments: str) -> dict[str, object]:
    code, output = run("prune", *arguments, "--json", "--tracking-uri", store.uri)
    assert code == 0, output
    content: dict[str, object] = json.loads(output)
    return content


def test_old_studies_go_with_their_rows_and_artifacts(
    store: TrackingStore, tiny_cells: Cells
) -> None:
    study_of(store, tiny_cells, "benchmark-old", 100)
    study_of(store, tiny_cells, "benchmark-new", 80)
    before = folders(store)
    shown = prune(store, "--older-than", "90d")
    (old,) = shown["studies"]  # type: ignore[misc]
    assert (old["study"], old["runs"]) == ("benchmark-old", 2)
    size = sum(
        path.stat().st_size
        for run in store.search({"mmlab.study": "benchmark-old"})
        for path in before[run.info.run_id].rglob("*")
        if path.is_file()
    )
    assert old["bytes"] == size > 1000
    assert folders(store) == before

    assert prune(store, "--older-than", "90d", "--delete")["deleted"]
    kept = folders(store)
    assert {r.data.tags["mmlab.study"] for r in store.search({})} == {"benchmark-new"}
    for run_id, folder in before.items():
        assert any(folder.rglob("*")) == (run_id in kept)
    with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as database:
        for table in ("runs", "params", "tags"):
            rows = database.execute(f"SELECT DISTINCT run_uuid FROM {table}").fetchall()
            assert {run_id for (run_id,) in rows} <= set(kept)
    assert prune(store, "--older-than", "90d")["studies"] == []


def test_running_promoted_and_compared_studies_are_kept(
    store: TrackingStore, tiny_cells: Cells
) -> None:
    study_of(store, tiny_cells, "running", 100, ended=False)
    store.reopen(next(store.search({"mmlab.kind": "study"})).info.run_id)
    promoted = study_of(store, tiny_cells, "promoted", 100)
    study_of(store, tiny_cells, "locked", 100)
    modelled = study_of(store, tiny_cells, "modelled", 100)
    study_of(store, tiny_cells, "unsent", 100)
    tags = {
        "mmlab.kind": "promotion",
        "mmlab.study": "promoted",
        "mmlab.comparisons": "locked,paper",
    }
    store.close(store.create_run(promoted.experiment_id, "promotion", tags), "FINISHED")
    store.client.create_registered_model("model")
    source = store.client.get_run(modelled.run_id).info.artifact_uri
    version_tags = {"mmlab.study": "modelled"}
    store.client.create_model_version("model", source, modelled.run_id, version_tags)
    outbox = store.study_folder("unsent") / "outbox"
    outbox.mkdir(parents=True)
    (outbox / "1.json").touch()

    before = folders(store)
    shown = prune(store, "--older-than", "0d", "--delete")
    assert shown["studies"] == []
    assert set(shown["kept"]) == {  # type: ignore[call-overload]
        "running",
        "promoted",
        "locked",
        "modelled",
        "unsent",
    }
    assert folders(store) == before
    refusal = mistake("prune", "running", "--delete", "--tracking-uri", store.uri)
    assert "running in process" in refusal
    assert folders(store) == before


def test_named_studies_and_runs_without_a_study(store: TrackingStore, tiny_cells: Cells) -> None:
    study = study_of(store, tiny_cells, "benchmark-a", 1)
    study_of(store, tiny_cells, "benchmark-b", 2)
    alone = TrialRun.create(store, study.experiment_id, TRIAL, "alone", tiny_cells)
    close_trial(store, alone.run_id, Outcome.COMPLETE)
    name = store.client.get_run(alone.run_id).info.run_name
    foreign = store.client.create_run(study.experiment_id).info.run_id

    prune(store, study.run_id, "--delete")
    names = {run.data.tags.get("mmlab.study") for run in store.search({"mmlab.kind": "study"})}
    assert names == {"benchmark-b"}
    text = run("prune", "--older-than", "0h", "--delete", "--tracking-uri", store.uri)[1]
    assert f"{name}, run {alone.run_id}: 1 run, " in text
    # What mmlab did not make is not touched.
    assert [run.info.run_id for run in store.search({})] == [foreign]


def test_mistakes_are_one_sentence(store: TrackingStore) -> None:
    uri = ("--tracking-uri", store.uri)
    assert "nothing is selected" in mistake("prune", *uri)
    assert "'90' is not an age" in mistake("prune", "--older-than", "90", *uri)
    assert "study 'other' is not in" in mistake("prune", "other", *uri)
