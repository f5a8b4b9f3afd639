"""End-to-end tests of `mmlab tune`, with real processes, Ray and an MLflow database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from processes import SMALL, tune

from mmlab.spec.search import SearchSpec
from mmlab.tracking import StudyRun, TrackingStore, open_study
from mmlab.trial.outcome import Outcome
from mmlab.trial.run import OBJECTIVE

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def study_of(folder: Path, name: str) -> StudyRun:
    return open_study(TrackingStore(f"sqlite:///{folder}/mlflow.db"), name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Run a small search with baselines, one trial at a time; return its folder and output."""
    folder = tmp_path_factory.mktemp("study")
    options = ["--trials", "4", "--epochs", "4", "--max-concurrent", "1", "--with-baselines"]
    return folder, tune(folder, *SMALL, *options)


def test_study_prints_its_trials_and_its_best_panel(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    _, study = finished
    searched = [t for t in study["trials"] if t["selector"] == "markermap_supervised"]
    assert len(searched) == 4
    assert {t["selector"] for t in study["trials"]} == {
        "markermap_supervised",
        "random",
        "scanpy_t_test",
    }
    complete = [t for t in searched if t["status"] == "complete"]
    best = max(complete, key=lambda t: t["metrics"]["validation/score"])
    assert study["best"]["digest"] == best["digest"]
    assert len(set(study["best"]["panel"])) == 10
    assert set(study["best"]["config"]) >= {"hidden_size", "beta", "learning_rate"}


def test_runs_of_all_trials_are_nested_and_closed(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, content = finished
    study = study_of(folder, content["study"])
    client = study.store.client
    parent = client.get_run(study.run_id)
    assert parent.info.status == "FINISHED"
    assert client.get_experiment(study.experiment_id).name == "pbmc68k_reduced"
    assert parent.inputs.dataset_inputs[0].dataset.name == "pbmc68k_reduced"
    for trial in study.trials():
        run = client.get_run(trial.run_id)
        assert run.data.tags["mlflow.parentRunId"] == study.run_id
        assert run.info.status == ("FINISHED" if trial.outcome == Outcome.COMPLETE else "KILLED")
        assert run.data.params["n_markers"] == "10"
        fingerprint = run.data.tags["mmlab.fingerprint"]
        assert parent.inputs.dataset_inputs[0].dataset.digest == fingerprint[:32]
        assert trial.digest == trial.spec.digest(fingerprint)


def test_all_epochs_of_a_trial_are_logged(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, content = finished
    study = study_of(folder, content["study"])
    assert isinstance(study.spec, SearchSpec)
    rungs = study.spec.search.rungs(4)
    searched = [t for t in study.trials() if t.selector == "markermap_supervised"]
    for trial in searched:
        epochs = [epoch for epoch, _ in study.score_history(trial, OBJECTIVE)]
        assert epochs == list(range(1, len(epochs) + 1))
        assert len(epochs) == 4 if trial.outcome == Outcome.COMPLETE else len(epochs) in rungs
        if trial.outcome == Outcome.COMPLETE:
            assert trial.metrics["peak_memory_mb"] > 100


def test_run_with_an_outcome_that_is_still_open_is_closed(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, content = finished
    study = study_of(folder, content["study"])
    before = {trial.run_id: trial.outcome for trial in study.trials()}
    for run_id in before:
        study.store.reopen(run_id)
    study.close_open_trials()
    assert {trial.run_id: trial.outcome for trial in study.trials()} == before
    for run_id, outcome in before.items():
        status = study.store.client.get_run(run_id).info.status
        assert status == ("FINISHED" if outcome == Outcome.COMPLETE else "KILLED")


def test_complete_trial_has_panel_metric_curves_and_figures(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, content = finished
    study = study_of(folder, content["study"])
    client, run_id = study.store.client, content["best"]["run_id"]
    local = Path(client.download_artifacts(run_id, "", str(tmp_path)))
    markers = pd.read_parquet(local / "markers.parquet")
    assert list(markers.columns) == ["rank", "gene", "gene_index", "score"]
    assert markers["gene"].tolist() == content["best"]["panel"]
    pd.testing.assert_frame_equal(pd.read_csv(local / "panel.csv"), markers)
    assert len(pd.read_parquet(local / "replicates.parquet")) == 1
    assert json.loads((local / "trial.json").read_text())["digest"] == content["best"]["digest"]
    for figure in ("confusion_knn", "confusion_random_forest"):
        assert (local / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    curve = client.get_metric_history(run_id, "validation/score")
    steps = [point.step for point in curve]
    assert sorted(set(steps)) == [1, 2, 3, 4]
    temperatures = client.get_metric_history(run_id, "temperature")
    assert temperatures[0].value > temperatures[-1].value


def test_study_run_has_table_best_and_search_figures(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, content = finished
    study = study_of(folder, content["study"])
    local = Path(study.store.client.download_artifacts(study.run_id, "", str(tmp_path)))
    assert len(pd.read_parquet(local / "trials.parquet")) == 6
    assert json.loads((local / "best.json").read_text())["digest"] == content["best"]["digest"]
    figures = {path.name for path in (local / "figures").iterdir()}
    # Six trials are too few for importances.
    assert figures == {"search_history.png", "parameter_scores.png"}
    run = study.store.client.get_run(study.run_id)
    assert content["best"]["digest"][:8] in run.data.tags["mlflow.note.content"]
    best = content["best"]["metrics"]
    for name in ("score", "validation/knn/accuracy", "validation/score"):
        assert run.data.metrics[name] == best[name]
    assert best["score"] == best["validation/score"] == best["validation/knn/accuracy"]
    assert all(t["metrics"]["score"] == t["metrics"]["validation/score"] for t in content["trials"])
    assert "higher is better" in run.data.tags["mmlab.score"]
    page = f"http://127.0.0.1:5000/#/experiments/{study.experiment_id}/runs?"
    assert content["page"].startswith(page)
    assert study.run_id in content["page"]


def test_search_has_no_metrics_of_test_cells(finished: tuple[Path, dict[str, Any]]) -> None:
    _, content = finished
    names = {name for trial in content["trials"] for name in trial["metrics"]}
    complete = [trial for trial in content["trials"] if trial["status"] == "complete"]
    assert all(0 < t["metrics"]["fit_seconds"] < t["metrics"]["seconds"] for t in complete)
    own = {"epoch", "temperature", "seconds", "fit_seconds", "peak_memory_mb", "train/loss"}
    own.add("score")
    assert names - own == {name for name in names if name.startswith("validation/")}


@pytest.mark.long
def test_same_seed_one_at_a_time_gives_the_same_panels(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    _, first = finished
    options = ["--trials", "4", "--epochs", "4", "--max-concurrent", "1"]
    second = tune(tmp_path, *SMALL, *options)
    searched = [t for t in first["trials"] if t["selector"] == "markermap_supervised"]
    assert [t["digest"] for t in searched] == [t["digest"] for t in second["trials"]]
    assert [t["status"] for t in searched] == [t["status"] for t in second["trials"]]
    assert first["best"]["panel"] == second["best"]["panel"]
