"""Fault tolerance of `mmlab tune`: killed drivers and workers, and trials that fail."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from processes import (
    SMALL,
    printed,
    ray_actors,
    ray_process,
    run_mmlab,
    running_mmlab,
    tune,
    wait_until,
)

from mmlab.tracking import StudyRun, TrackingStore, open_study
from mmlab.trial.outcome import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def study_of(folder: Path, name: str) -> StudyRun:
    return open_study(TrackingStore(f"sqlite:///{folder}/mlflow.db"), name)


def test_killed_study_resumes_up_to_the_requested_number_of_trials(tmp_path: Path) -> None:
    options = ["--trials", "5", "--epochs", "60", "--seed", "3"]
    with running_mmlab(tmp_path, "tune", *SMALL, *options) as driver:
        wait_until(lambda: "[1/5]" in printed(tmp_path), driver, tmp_path)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    name = printed(tmp_path).split(":")[0]
    study = study_of(tmp_path, name)
    before = {t.run_id: t for t in study.trials()}
    ended = {r for r, t in before.items() if t.outcome in ("complete", "stopped")}
    unsent = list((study.store.study_folder(name) / "outbox").glob("*.json"))
    n_ended = len({before[r].digest for r in ended} | {path.stem for path in unsent})
    assert 1 <= n_ended < 5

    done = run_mmlab(tmp_path, "tune", "--resume", name, "--json")
    assert done.returncode == 0, done.stderr
    assert f"{name}: {5 - n_ended} of 5 trials to do" in done.stderr
    resumed = json.loads(done.stdout)

    after = {t.run_id: t for t in study.trials()}
    assert len(after) == 5
    assert set(before) <= set(after)
    assert len({t.digest for t in after.values()}) == 5
    assert all(t.outcome in ("complete", "stopped") for t in after.values())
    for run_id in ended:
        assert after[run_id].metrics == before[run_id].metrics
    for run in study.store.search({}, status="RUNNING"):
        pytest.fail(f"run {run.info.run_name} is still RUNNING")
    assert resumed["best"] is not None
    for trial in after.values():
        epochs = [epoch for epoch, _ in study.score_history(trial, "train/loss")]
        assert epochs == sorted(set(epochs))


@pytest.mark.long
def test_lost_ray_ends_a_search_and_its_workers(tmp_path: Path) -> None:
    options = ["--trials", "3", "--epochs", "60"]
    with running_mmlab(tmp_path, "tune", *SMALL, *options) as driver:
        wait_until(lambda: "[1/3]" in printed(tmp_path), driver, tmp_path)
        processes = psutil.Process(driver.pid).children(recursive=True)
        ray_process(driver.pid, "gcs_server").kill()
        assert driver.wait(timeout=100) == 75
    message = printed(tmp_path).splitlines()[-1]
    assert message.startswith("Ray on this machine was lost: its process gcs_server was killed")
    name = message.split()[-1]
    study = study_of(tmp_path, name)
    assert not list(study.store.search({}, status="RUNNING"))
    assert Outcome.FAILED not in [trial.outcome for trial in study.trials()]
    # A worker that goes on would write to runs that are closed.
    assert not [p.name() for p in processes if p.is_running() and p.status() != "zombie"]
    trials = tune(tmp_path, "--resume", name)["trials"]
    assert len(trials) == len({trial["digest"] for trial in trials}) == 3
    assert {trial["status"] for trial in trials} <= {"complete", "stopped"}


@pytest.mark.long
def test_second_driver_of_a_running_study_is_refused(tmp_path: Path) -> None:
    options = ["--trials", "3", "--epochs", "100"]
    with running_mmlab(tmp_path, "tune", *SMALL, *options) as driver:
        wait_until(lambda: ": 3 of 3 trials to do" in printed(tmp_path), driver, tmp_path)
        name = printed(tmp_path).split(":")[0]
        second = run_mmlab(tmp_path, "tune", "--resume", name)
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(timeout=120) == 130
    assert second.returncode == 2
    assert f"process {driver.pid}" in second.stderr
    study = study_of(tmp_path, name)
    assert study.store.client.get_run(study.run_id).info.status == "KILLED"
    assert all(t.outcome != Outcome.RUNNING for t in study.trials())


def test_killed_worker_is_replaced_and_no_trial_is_lost(tmp_path: Path) -> None:
    options = ["--trials", "3", "--epochs", "40", "--max-concurrent", "1"]
    with running_mmlab(tmp_path, "tune", *SMALL, *options) as driver:
        wait_until(lambda: "[1/3]" in printed(tmp_path), driver, tmp_path)
        workers = ray_actors(driver.pid)
        assert workers
        for worker in workers:
            worker.kill()
        assert driver.wait(timeout=300) == 0
    name = printed(tmp_path).split(":")[0]
    outcomes = [trial.outcome for trial in study_of(tmp_path, name).trials()]
    assert len(outcomes) == 3
    assert set(outcomes) <= {Outcome.COMPLETE, Outcome.STOPPED}


def test_trial_that_diverges_fails_with_a_reason_and_the_others_continue(tmp_path: Path) -> None:
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
    assert "defaults: learning_rate=1e+30 (default" in run.data.tags["mmlab.reason"]
    # The search space has only two points, so that there is no configuration for a third trial.
    more = run_mmlab(tmp_path, "tune", "--resume", content["study"], "--trials", "3")
    assert more.returncode == 2
    assert "search space is exhausted" in more.stderr


@pytest.mark.long
def test_a_trial_that_hangs_is_ended_and_the_others_continue(tmp_path: Path) -> None:
    options = ["--trials", "3", "--epochs", "40", "--max-concurrent", "1", "--name", "hangs"]
    frozen: set[int] = set()
    with running_mmlab(tmp_path, "tune", *SMALL, *options, "--minutes-per-trial", "0.4") as driver:
        wait_until(lambda: "[1/3]" in printed(tmp_path), driver, tmp_path)

        def has_failed() -> bool:
            for worker in ray_actors(driver.pid):
                if worker.pid not in frozen:
                    worker.send_signal(signal.SIGSTOP)
                    frozen.add(worker.pid)
            return "[2/3]" in printed(tmp_path)

        wait_until(has_failed, driver, tmp_path)
        assert driver.wait(timeout=300) == 0
    trials = study_of(tmp_path, "hangs").trials()
    (failed,) = [trial for trial in trials if trial.outcome == Outcome.FAILED]
    assert failed.reason == "The trial took longer than --minutes-per-trial 0.4, in two attempts."
    assert len(frozen) == 2
    assert {t.outcome for t in trials if t is not failed} <= {Outcome.COMPLETE, Outcome.STOPPED}
    assert len(trials) == 3
    assert not list(study_of(tmp_path, "hangs").store.search({}, status="RUNNING"))
