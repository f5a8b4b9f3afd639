"""A cluster of two nodes, one of which cannot import mmlab."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import SMALL, keep_ray_token, ray_actors, run_mmlab, running_mmlab, tune

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

#: Starts mmlab with a limit above which cells are not sent to workers by value.
_LARGE = (
    "import mmlab.datasets.cells as c; c._MAX_PICKLED_BYTES = 0; from mmlab.cli import main; main()"
)


def test_node_without_mmlab_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trial fails, and the node is named with the reason."""
    importlib.import_module("mmlab.schedule")  # sets what Ray reads when it is imported
    from ray.cluster_utils import Cluster

    broken = tmp_path / "broken" / "mmlab"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no mmlab on this node')\n")
    keep_ray_token()
    monkeypatch.chdir(tmp_path)
    environment = {"PYTHONPATH": str(broken.parent)}
    head = {"num_cpus": 2, "node_name": "bare", "env_vars": environment}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        options = [*SMALL, "--epochs", "3", "--address", cluster.address]
        done = run_mmlab(tmp_path, "tune", *options, "--trials", "2")
        assert done.returncode == 2, done.stderr
        assert "can run trials: bare (ImportError: no mmlab on this node)." in done.stderr
        assert "Traceback" not in done.stderr
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

        cluster.add_node(num_cpus=1, node_name="equipped")
        content = tune(tmp_path, *options, "--trials", "3")
        assert len(content["trials"]) == 3
        assert {trial["status"] for trial in content["trials"]} <= {"complete", "stopped"}
        assert content["best"] is not None
    finally:
        cluster.shutdown()


@pytest.mark.long
def test_a_node_that_joins_is_used_and_its_loss_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search on one node; a second joins, runs trials, and is killed with its workers."""
    importlib.import_module("mmlab.schedule")
    from ray.cluster_utils import Cluster

    keep_ray_token()
    monkeypatch.chdir(tmp_path)
    head = {"num_cpus": 1, "node_name": "first"}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        options = [*SMALL, "--epochs", "40", "--trials", "12", "--name", "elastic"]
        options += ["--address", cluster.address, "--json"]
        with running_mmlab(tmp_path, "tune", *options) as driver:
            wait_for_actor(raylet_of(cluster.head_node), driver, tmp_path)
            second = cluster.add_node(num_cpus=1, node_name="second")
            raylet = raylet_of(second)
            wait_for_actor(raylet, driver, tmp_path)
            workers = psutil.Process(raylet).children(recursive=True)
            cluster.remove_node(second, allow_graceful=False)
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
            assert driver.wait(timeout=500) == 0, (tmp_path / "stderr").read_text()
    finally:
        cluster.shutdown()
    printed = (tmp_path / "stderr").read_text()
    content = json.loads(printed[printed.index("\n{") :])
    assert len(content["trials"]) == 12
    assert {trial["status"] for trial in content["trials"]} <= {"complete", "stopped"}


def raylet_of(node: Any) -> int:
    """Return the process id of the raylet of a node."""
    return int(node.all_processes["raylet"][0].process.pid)


def wait_for_actor(raylet: int, driver: subprocess.Popen[str], folder: Path) -> None:
    """Wait until a trial runs on the node of a raylet."""
    deadline = time.monotonic() + 300
    while not ray_actors(raylet):
        assert driver.poll() is None, (folder / "stderr").read_text()
        assert time.monotonic() < deadline, (folder / "stderr").read_text()
        time.sleep(0.5)


@pytest.mark.long
def test_large_cells_are_copied_once_to_each_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node with a cache of its own runs trials on a dataset that only the driver has."""
    importlib.import_module("mmlab.schedule")
    from ray.cluster_utils import Cluster

    keep_ray_token()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLAB_CACHE", str(tmp_path / "driver"))
    simulated = ["--like", "zeisel", "--cells", "300", "--genes", "60"]
    done = run_mmlab(tmp_path, "datasets", "simulate", *simulated, "--name", "small_simulated")
    assert done.returncode == 0, done.stderr
    (counts,) = (tmp_path / "driver" / "counts").iterdir()
    # The driver's machine has no room for trials.
    head = {"num_cpus": 0, "node_name": "driver"}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        monkeypatch.setenv("MMLAB_CACHE", str(tmp_path / "node"))
        cluster.add_node(num_cpus=2, node_name="node")
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
    finally:
        cluster.shutdown()
