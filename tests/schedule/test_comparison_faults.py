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
import yaml
from processes import mmlab_command, ray_actors, ray_process, run_mmlab, running_mmlab
from servers import free_port, server

from mmlab.tracking import TrackingStore
from mmlab.trial.outcome import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

STUDY: dict[str, Any] = {
    "study": "robustness",
    "data": {"name": "pbmc68k_reduced"},
    "levels": [0, 0.5, 1],
    "n_markers": [10],
    "replicates": 2,
    "methods": [
        "random",
        "scanpy_t_test",
        {
            "selector": "markermap_supervised",
            "params": {"max_epochs": 3, "min_epochs": 3, "hidden_size": 32},
        },
    ],
}
N_TRIALS = 3 * 3 * 2


def write_study(folder: Path) -> None:
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))


def run_study(folder: Path, *arguments: str) -> dict[str, Any]:
    done = run_mmlab(folder, "run", "study.yaml", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def result_rows(content: dict[str, Any]) -> pd.DataFrame:
    """Return the finished replicates without run times, which differ from run to run."""
    rows = pd.DataFrame(content["trials"]).drop(columns=["seconds", "fit_seconds"])
    assert rows["digest"].is_unique or set(rows["method"]) != {"random"}
    return rows


def wait_for(folder: Path, driver: subprocess.Popen[str], pattern: str) -> None:
    deadline = time.monotonic() + 300
    while not re.search(pattern, (folder / "stderr").read_text()):
        assert time.monotonic() < deadline, (folder / "stderr").read_text()
        assert driver.poll() is None, (folder / "stderr").read_text()
        time.sleep(0.02)


def assert_complete(uri: str, reference: dict[str, Any], content: dict[str, Any]) -> None:
    """Assert that the results are those of the reference and each trial has one finished run."""
    pd.testing.assert_frame_equal(result_rows(content), result_rows(reference))
    store = TrackingStore(uri)
    trials = list(store.search({"mmlab.kind": "trial"}))
    digests = [run.data.tags["mmlab.digest"] for run in trials]
    assert sorted(digests) == sorted(row["digest"] for row in reference["trials"])
    assert {run.data.tags["mmlab.outcome"] for run in trials} == {Outcome.COMPLETE}
    everything = list(store.search({}))
    assert {run.info.status for run in everything} == {"FINISHED"}
    for run in trials:
        points = store.client.get_metric_history(run.info.run_id, "knn/accuracy")
        assert len(points) == 1


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("reference")
    write_study(folder)
    content = run_study(folder)
    assert len(content["trials"]) == N_TRIALS
    assert_complete(f"sqlite:///{folder}/mlflow.db", content, content)
    return content


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
        (n_trials,) = re.findall(r"(\d+) trials to compute", (tmp_path / "stderr").read_text())
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
    *progress, message = (tmp_path / "stderr").read_text().splitlines()
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
        assert driver.wait(timeout=300) == 0, (tmp_path / "stderr").read_text()
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
            assert driver.wait(timeout=300) == 0, (tmp_path / "stderr").read_text()
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
        assert driver.wait(timeout=300) == 75, (tmp_path / "stderr").read_text()
    text = (tmp_path / "stderr").read_text()
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
