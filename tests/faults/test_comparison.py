"""Fault tolerance of `mmlab run`: drivers, workers and tracking servers are killed at random."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from processes import (
    mmlab_command,
    printed,
    ray_actors,
    ray_process,
    run_mmlab,
    running_mmlab,
    wait_for,
)
from reference_study import N_TRIALS, assert_complete, result_rows, run_study, write_study
from servers import free_port, server

from mmlab.tracking import TrackingStore

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.mark.long
def test_driver_that_is_killed_repeatedly(reference: dict[str, Any], tmp_path: Path) -> None:
    write_study(tmp_path)
    rng, remaining, processes = random.Random(0), [], list[psutil.Process]()
    for _ in range(3):
        with running_mmlab(tmp_path, "run", "study.yaml") as driver:
            wait_for(tmp_path, driver, rf"\[{rng.randint(1, 4)}/")
            time.sleep(rng.random())
            processes += psutil.Process(driver.pid).children(recursive=True)
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        (n_trials,) = re.findall(r"(\d+) trials to compute", printed(tmp_path))
        remaining.append(int(n_trials))
    assert remaining[0] == N_TRIALS
    assert remaining[0] > remaining[1] > remaining[2]
    assert_complete(f"sqlite:///{tmp_path}/mlflow.db", reference, run_study(tmp_path))
    # The next command has ended what the killed drivers left behind.
    assert not [p.name() for p in processes if p.is_running() and p.status() != "zombie"]


@pytest.mark.long
@pytest.mark.parametrize(("name", "ended"), [("raylet", 0), ("gcs_server", 5), ("raylet", 16)])
def test_lost_ray(reference: dict[str, Any], tmp_path: Path, name: str, ended: int) -> None:
    """The study ends with one sentence; the same command gives the results without the loss."""
    write_study(tmp_path)
    with running_mmlab(tmp_path, "run", "study.yaml") as driver:
        wait_for(tmp_path, driver, rf"\[{ended}/" if ended else "trials to do")
        ray_process(driver.pid, name).kill()
        assert driver.wait(timeout=100) == 75
    *progress, message = printed(tmp_path).splitlines()
    assert message.startswith(f"Ray on this machine was lost: its process {name} was killed")
    assert message.endswith(" run study.yaml")
    assert all(re.match(r"\d+ trials to|robustness-|\[\d+/", line) for line in progress), progress
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert not list(TrackingStore(uri).search({}, status="RUNNING"))
    assert_complete(uri, reference, run_study(tmp_path))


@pytest.mark.long
def test_killed_workers(reference: dict[str, Any], tmp_path: Path) -> None:
    write_study(tmp_path)
    rng = random.Random(1)
    with running_mmlab(tmp_path, "run", "study.yaml", "--json") as driver:
        for ended in (1, 7):
            wait_for(tmp_path, driver, rf"\[{ended}/")
            time.sleep(rng.random())
            workers = ray_actors(driver.pid)
            assert workers
            rng.choice(workers).kill()
        assert driver.wait(timeout=300) == 0, printed(tmp_path)
    assert_complete(f"sqlite:///{tmp_path}/mlflow.db", reference, run_study(tmp_path))


@pytest.mark.long
def test_second_driver_of_the_same_study_is_refused(
    reference: dict[str, Any], tmp_path: Path
) -> None:
    write_study(tmp_path)
    command = mmlab_command("run", "study.yaml", "--json")
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [driver.communicate(timeout=300) for driver in both]
    codes = [driver.returncode for driver in both]
    assert sorted(codes) == [0, 2], outputs
    first, second = (outputs[codes.index(code)] for code in (0, 2))
    assert f"is already running in process {both[codes.index(0)].pid} on" in second[1]
    assert_complete(f"sqlite:///{tmp_path}/mlflow.db", reference, json.loads(first[0]))


@pytest.mark.long
def test_tracking_server_that_is_killed_and_restarted(
    reference: dict[str, Any], tmp_path: Path
) -> None:
    write_study(tmp_path)
    rng, port = random.Random(2), free_port()
    uri = f"http://127.0.0.1:{port}"
    first = ExitStack()
    first.enter_context(server(tmp_path, port))
    with running_mmlab(tmp_path, "run", "study.yaml", "--json", "--tracking-uri", uri) as driver:
        wait_for(tmp_path, driver, rf"\[{rng.randint(1, 3)}/")
        time.sleep(rng.random())
        first.close()
        with server(tmp_path, port):
            wait_for(tmp_path, driver, rf"\[{rng.randint(8, 11)}/")
            time.sleep(rng.random())
        with server(tmp_path, port):
            assert driver.wait(timeout=300) == 0, printed(tmp_path)
            assert_complete(uri, reference, run_study(tmp_path, "--tracking-uri", uri))


@pytest.mark.long
def test_results_reach_a_tracking_server_that_is_down_until_the_study_is_rerun(
    reference: dict[str, Any], tmp_path: Path
) -> None:
    write_study(tmp_path)
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    first = ExitStack()
    first.enter_context(server(tmp_path, port))
    with running_mmlab(tmp_path, "run", "study.yaml", "--json", "--tracking-uri", uri) as driver:
        wait_for(tmp_path, driver, rf"\[{random.Random(3).randint(2, 6)}/")
        first.close()
        assert driver.wait(timeout=300) == 75, printed(tmp_path)
    text = printed(tmp_path)
    # The results are printed even if the tracking server does not have them.
    content = json.loads(text[text.index("{\n") : text.rindex("\n}") + 2])
    pd.testing.assert_frame_equal(result_rows(content), result_rows(reference))
    assert content["unsent"] > 0
    assert "could not be sent" in text
    with server(tmp_path, port):
        done = run_mmlab(tmp_path, "run", "study.yaml", "--json", "--tracking-uri", uri)
        assert done.returncode == 0, done.stderr
        assert "trials to compute" not in done.stderr
        assert_complete(uri, reference, json.loads(done.stdout))


@pytest.mark.long
def test_a_trial_that_hangs_has_failed_and_is_computed_when_the_study_is_run_again(
    reference: dict[str, Any], tmp_path: Path
) -> None:
    write_study(tmp_path)
    frozen: set[int] = set()
    options = ["--minutes-per-trial", "0.2", "--max-concurrent", "1"]
    with running_mmlab(tmp_path, "run", "study.yaml", *options) as driver:
        wait_for(tmp_path, driver, r"\[5/")
        while "failed" not in printed(tmp_path):
            assert driver.poll() is None, printed(tmp_path)
            for worker in ray_actors(driver.pid):
                if worker.pid not in frozen:
                    worker.send_signal(signal.SIGSTOP)
                    frozen.add(worker.pid)
            time.sleep(0.2)
        assert driver.wait(timeout=300) == 1, printed(tmp_path)
    assert "The trial took longer than --minutes-per-trial 0.2" in printed(tmp_path)
    content = run_study(tmp_path)
    pd.testing.assert_frame_equal(result_rows(content), result_rows(reference))
