"""`mmlab tune` as a user runs it: real processes, real Ray, a real MLflow database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from processes import SMALL, run_mmlab, started, tune

from mmlab.spec.search import SearchSpec
from mmlab.tracking import Outcome, StudyRun, TrackingStore, open_study
from mmlab.trial.run import OBJECTIVE

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def study_of(folder: Path, name: str) -> StudyRun:
    return open_study(TrackingStore(f"sqlite:///{folder}/mlflow.db"), name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A small study with baselines, one trial at a time, and what it printed."""
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


def test_store_keeps_every_trial_nested_and_closed(
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
        assert run.inputs.dataset_inputs[0].dataset.digest == fingerprint[:32]
        assert trial.digest == trial.spec.digest(fingerprint)


def test_every_epoch_of_every_trial_is_kept_until_it_ended_or_was_stopped(
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


def test_run_killed_between_its_outcome_and_its_end_is_closed(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, content = finished
    study = study_of(folder, content["study"])
    before = {trial.run_id: trial.outcome for trial in study.trials()}
    for run_id in before:
        study.store.reopen(run_id)
    assert all(trial.is_open for trial in study.trials())
    study.close_open_trials()
    after = study.trials()
    assert {trial.run_id: trial.outcome for trial in after} == before
    assert not any(trial.is_open for trial in after)
    for run_id, outcome in before.items():
        status = study.store.client.get_run(run_id).info.status
        assert status == ("FINISHED" if outcome == Outcome.COMPLETE else "KILLED")


def test_complete_trial_has_panel_curves_and_figures(
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
    for picture in ("confusion_knn", "confusion_random_forest"):
        assert (local / "figures" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
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
    pictures = {path.name for path in (local / "figures").iterdir()}
    assert pictures == {
        "optimization_history.png",
        "parallel_coordinate.png",
        "param_importances.png",
    }
    run = study.store.client.get_run(study.run_id)
    assert content["best"]["digest"][:8] in run.data.tags["mlflow.note.content"]


def test_search_never_measures_test_cells(finished: tuple[Path, dict[str, Any]]) -> None:
    _, content = finished
    names = {name for trial in content["trials"] for name in trial["metrics"]}
    assert names - {"epoch", "temperature", "seconds", "peak_memory_mb", "train/loss"} == {
        name for name in names if name.startswith("validation/")
    }


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


def test_killed_study_resumes_to_the_trials_asked_for(tmp_path: Path) -> None:
    options = ["--trials", "5", "--epochs", "60", "--seed", "3"]
    with started(tmp_path, "tune", *SMALL, *options) as driver:
        wait_for(lambda: "[1/5]" in (tmp_path / "stderr").read_text(), driver)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    name = (tmp_path / "stderr").read_text().split(":")[0]
    before = {t.run_id: t for t in study_of(tmp_path, name).trials()}
    ended = {r for r, t in before.items() if t.outcome in ("complete", "stopped")}
    assert 1 <= len(ended) < 5

    resumed = tune(tmp_path, "--resume", name)

    study = study_of(tmp_path, name)
    after = {t.run_id: t for t in study.trials()}
    assert len(after) == 5
    assert set(before) <= set(after)
    assert len({t.digest for t in after.values()}) == 5
    assert all(t.outcome in ("complete", "stopped") for t in after.values())
    for run_id in ended:
        assert after[run_id].metrics == before[run_id].metrics
    for run in study.store.search("attributes.status = 'RUNNING'"):
        pytest.fail(f"run {run.info.run_name} is still RUNNING")
    assert resumed["best"] is not None
    for trial in after.values():
        epochs = [epoch for epoch, _ in study.score_history(trial, "train/loss")]
        assert epochs == sorted(set(epochs))


def test_second_driver_on_a_running_study_is_refused(tmp_path: Path) -> None:
    options = ["--trials", "3", "--epochs", "100"]
    with started(tmp_path, "tune", *SMALL, *options) as driver:
        wait_for(lambda: ": 3 of 3 trials to do" in (tmp_path / "stderr").read_text(), driver)
        name = (tmp_path / "stderr").read_text().split(":")[0]
        second = run_mmlab(tmp_path, "tune", "--resume", name)
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(timeout=120) == 130
    assert second.returncode == 2
    assert f"process {driver.pid}" in second.stderr
    study = study_of(tmp_path, name)
    assert study.store.client.get_run(study.run_id).info.status == "KILLED"
    assert all(t.outcome != Outcome.RUNNING for t in study.trials())


def wait_for(condition: Any, driver: subprocess.Popen[str], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, f"the driver ended early with {driver.returncode}"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def is_actor(title: str) -> bool:
    """Whether a process with this title works on trials; Ray renames it for every call."""
    return title.startswith(("ray::ResourceTrainable", "ray::TrialActor"))


def test_killed_worker_is_replaced_and_no_trial_is_lost(tmp_path: Path) -> None:
    options = ["--trials", "3", "--epochs", "40", "--max-concurrent", "1"]
    with started(tmp_path, "tune", *SMALL, *options) as driver:
        wait_for(lambda: "[1/3]" in (tmp_path / "stderr").read_text(), driver)
        workers = [
            process
            for process in psutil.Process(driver.pid).children(recursive=True)
            if is_actor(" ".join(process.cmdline()))
        ]
        assert workers
        for worker in workers:
            worker.kill()
        assert driver.wait(timeout=300) == 0
    name = (tmp_path / "stderr").read_text().split(":")[0]
    outcomes = [trial.outcome for trial in study_of(tmp_path, name).trials()]
    assert len(outcomes) == 3
    assert set(outcomes) <= {Outcome.COMPLETE, Outcome.STOPPED}


def test_trial_that_raises_fails_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "selector: markermap_supervised\n"
        "parameters:\n"
        "  learning_rate: {choices: [0.002, 1.0e+30]}\n"
        "fixed: {max_epochs: 3}\n"
    )
    content = tune(tmp_path, *SMALL, "--search", "space.yaml", "--trials", "2")
    by_rate = {t["params"]["learning_rate"]: t for t in content["trials"]}
    assert by_rate[0.002]["status"] == "complete"
    assert by_rate[1e30]["status"] == "failed"
    study = study_of(tmp_path, content["study"])
    run = study.store.client.get_run(by_rate[1e30]["run_id"])
    assert run.info.status == "FAILED"
    assert "lower the learning rate" in run.data.tags["mmlab.reason"]
    # The space has two points: a third trial cannot be found, and that is said.
    more = run_mmlab(tmp_path, "tune", "--resume", content["study"], "--trials", "3")
    assert more.returncode == 2
    assert "search space is exhausted" in more.stderr
