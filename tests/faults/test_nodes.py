"""Clusters with nodes that cannot run trials, that join, hang, come back, and are lost."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from processes import SMALL, printed, run_mmlab, running_mmlab, tune, wait_for, wait_until
from ray_clusters import RayNodes, freeze, ray_nodes, runs_trials, thaw
from reference_study import assert_complete, run_study, write_study

from mmlab.tracking import TrackingStore

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

#: Starts mmlab with a limit above which cells are not sent to workers by value.
_LARGE = (
    "import mmlab.datasets.cells as c; c._MAX_PICKLED_BYTES = 0; from mmlab.cli import main; main()"
)


@contextmanager
def disturbed_study(
    reference: dict[str, Any], folder: Path
) -> Iterator[tuple[RayNodes, Any, subprocess.Popen[str]]]:
    """Run the study on two nodes; yield cluster, second node and driver, to do harm to.

    After the block the study has to end, with the table of an undisturbed run.
    """
    write_study(folder)
    with ray_nodes("first") as cluster:
        second = cluster.add("second")
        with running_mmlab(folder, "run", "study.yaml", "--address", cluster.address) as driver:
            yield cluster, second, driver
            assert driver.wait(timeout=300) == 0, printed(folder)
    assert_complete(f"sqlite:///{folder}/mlflow.db", reference, run_study(folder))


def test_node_without_mmlab_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trial fails, and the node is named with the reason."""
    broken = tmp_path / "broken" / "mmlab"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no mmlab on this node')\n")
    monkeypatch.chdir(tmp_path)
    with ray_nodes("bare", 2, env_vars={"PYTHONPATH": str(broken.parent)}) as cluster:
        options = [*SMALL, "--epochs", "3", "--address", cluster.address]
        done = run_mmlab(tmp_path, "tune", *options, "--trials", "2")
        assert done.returncode == 2, done.stderr
        assert "can run trials: bare (ImportError: no mmlab on this node)." in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "mlflow.db").exists()
        checked = run_mmlab(tmp_path, "cluster", "check", "--address", cluster.address)
        assert checked.returncode == 1, checked.stderr
        named = "1 of 1 nodes have problems: bare (ImportError: no mmlab on this node)"
        assert named in checked.stderr
        assert re.search(r"^ bare +2 +0 +ImportError", checked.stdout, flags=re.MULTILINE)
        (tmp_path / "empty").mkdir()
        few = run_mmlab(tmp_path / "empty", "tune", *options, "--gpus-per-trial", "2")
        assert few.returncode == 2
        assert "requests 2 GPUs, but no node of the Ray cluster has more than 0" in few.stderr
        assert not list((tmp_path / "empty").iterdir())

        cluster.add("equipped")
        content = tune(tmp_path, *options, "--trials", "3")
        assert len(content["trials"]) == 3
        assert {trial["status"] for trial in content["trials"]} <= {"complete", "stopped"}
        assert content["best"] is not None


@pytest.mark.long
def test_a_node_that_joins_is_used_and_its_loss_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search on one node; a second joins, runs trials, and is killed with its workers."""
    monkeypatch.chdir(tmp_path)
    with ray_nodes("first") as cluster:
        options = [*SMALL, "--epochs", "40", "--trials", "12", "--name", "elastic"]
        options += ["--address", cluster.address, "--json"]
        with running_mmlab(tmp_path, "tune", *options) as driver:
            wait_until(lambda: runs_trials(cluster.head), driver, tmp_path)
            second = cluster.add("second")
            wait_until(lambda: runs_trials(second), driver, tmp_path)
            cluster.kill(second)
            assert driver.wait(timeout=500) == 0, printed(tmp_path)
    content = json.loads(printed(tmp_path)[printed(tmp_path).index("\n{") :])
    assert len(content["trials"]) == 12
    assert {trial["status"] for trial in content["trials"]} <= {"complete", "stopped"}


@pytest.mark.long
@pytest.mark.parametrize("ended", [1, 4, 8, 12, 15])
def test_a_node_that_is_killed_and_comes_back(
    reference: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    """The table of the study is that of an undisturbed run, whenever it happens."""
    monkeypatch.chdir(tmp_path)
    with disturbed_study(reference, tmp_path) as (cluster, second, driver):
        wait_for(tmp_path, driver, rf"\[{ended}/")
        cluster.kill(second)
        cluster.add("second again")


@pytest.mark.long
def test_a_node_that_is_taken_away_with_notice(
    reference: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spot machine: Ray is told seconds before that the node goes, then it is killed."""
    monkeypatch.chdir(tmp_path)
    with disturbed_study(reference, tmp_path) as (cluster, second, driver):
        wait_until(lambda: runs_trials(second), driver, tmp_path)
        wait_for(tmp_path, driver, r"\[2/")
        drain = [sys.executable, "-m", "ray.scripts.scripts", "drain-node"]
        drain += [f"--address={cluster.address}", f"--node-id={second.node_id}"]
        drain += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot"]
        subprocess.run([*drain, "--deadline-remaining-seconds=5"], check=True)
        time.sleep(5)
        cluster.kill(second)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [4, 30])
def test_a_node_that_hangs_and_goes_on(
    reference: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """A short pause does no harm; after a long one, what the node still does does not count."""
    monkeypatch.chdir(tmp_path)
    with disturbed_study(reference, tmp_path) as (_, second, driver):
        wait_until(lambda: runs_trials(second), driver, tmp_path)
        wait_for(tmp_path, driver, r"\[2/")
        frozen = freeze(second)
        time.sleep(seconds)
        thaw(frozen)


@pytest.mark.long
@pytest.mark.parametrize("way", ["killed", "hangs"])
def test_a_lost_head_ends_the_study_which_a_new_cluster_continues(
    reference: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    with ray_nodes("first") as cluster:
        second, address = cluster.add("second"), cluster.address
        with running_mmlab(tmp_path, "run", "study.yaml", "--address", address) as driver:
            wait_for(tmp_path, driver, r"\[3/")
            if way == "killed":
                cluster.kill_head()
            else:
                gcs = cluster.head.all_processes["gcs_server"][0].process
                gcs.send_signal(signal.SIGSTOP)
            assert driver.wait(timeout=100) == 75, printed(tmp_path)
            if way == "hangs":
                gcs.send_signal(signal.SIGCONT)
        cluster.kill(second)
    message = printed(tmp_path).splitlines()[-1]
    assert message.startswith(f"Ray at {address} was lost: its "), message
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert not list(TrackingStore(uri).search({}, status="RUNNING"))
    with ray_nodes("new", 2) as cluster:
        content = run_study(tmp_path, "--address", cluster.address)
    assert_complete(uri, reference, content)


@pytest.mark.long
def test_large_cells_are_copied_once_to_each_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node with a cache of its own runs trials on a dataset that only the driver has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLAB_CACHE", str(tmp_path / "driver"))
    simulated = ["--like", "zeisel", "--cells", "300", "--genes", "60"]
    done = run_mmlab(tmp_path, "datasets", "simulate", *simulated, "--name", "small_simulated")
    assert done.returncode == 0, done.stderr
    (counts,) = (tmp_path / "driver" / "counts").iterdir()
    # The driver's machine has no room for trials.
    with ray_nodes("driver", 0) as cluster:
        monkeypatch.setenv("MMLAB_CACHE", str(tmp_path / "node"))
        cluster.add("node", 2)
        monkeypatch.setenv("MMLAB_CACHE", str(tmp_path / "driver"))
        options = ["--dataset", "small_simulated", "--methods", "random,scanpy_t_test", "-k", "5"]
        options += ["--replicates", "2", "--address", cluster.address, "--json"]
        command = [sys.executable, "-c", _LARGE, "benchmark", *options]
        driver = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False
        )
        assert driver.returncode == 0, driver.stderr
        (copied,) = (tmp_path / "node" / "counts").iterdir()
        assert copied.name == counts.name
        assert copied.read_bytes() == counts.read_bytes()
        assert len(json.loads(driver.stdout)["trials"]) == 4
