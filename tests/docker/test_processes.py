"""Clusters of plain processes: local_cluster.sh, and the SLURM job with a simulated srun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from processes import run_mmlab

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.cluster]

DOCKER = Path(__file__).parents[2] / "docker"
RAY = f"{sys.executable} -m ray.scripts.scripts"
#: Runs a command once for each node of the allocation. The nodes share this machine: each has
#: ports of its own.
SRUN = """#!/usr/bin/env bash
while [[ ${1:-} == --* ]]; do shift; done
for node in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do
    SLURM_NODEID=$node RAY_FIRST_PORT=$((RAY_FIRST_PORT + 200 * node)) "$@" &
    # Two nodes of one machine must not start at the same time: they would use one name of a socket.
    if [ "$1" = bash ]; then sleep 15; fi
done
trap 'kill -TERM $(jobs -p)' TERM
wait
wait
"""
#: Counts the nodes, and ends with exit code 3 at SIGTERM.
DRIVER = """
import signal, sys, time
import ray
option, address = sys.argv[1:]
assert option == "--address"
ray.init(address=address, log_to_driver=False)
nodes = [node for node in ray.nodes() if node["Alive"]]
print("driver:", len(nodes), "nodes,", ray.cluster_resources()["CPU"], "CPUs", flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
while True:
    time.sleep(0.1)
"""


def test_local_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run on its nodes with its token, and nothing is left of it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp")) / "c"
    monkeypatch.setenv("CLUSTER_FOLDER", str(folder))
    monkeypatch.setenv("RAY", RAY)
    script = str(DOCKER / "local_cluster.sh")
    try:
        up = subprocess.run([script, "up", "2"], capture_output=True, text=True, check=False)
        assert up.returncode == 0, up.stderr
        assert subprocess.run([script, "status"], check=False).returncode == 0
        variable, address = up.stdout.split("\n")[1].split(" mmlab tune ")
        address = address.split()[-1]
        assert variable == f"RAY_AUTH_TOKEN_PATH={folder}/token"
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", f"{folder}/token")
        monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
        options = ["--dataset", "pbmc68k_reduced", "--methods", "random", "-k", "5"]
        done = run_mmlab(tmp_path, "benchmark", *options, "--replicates", "2", "--address", address)
        assert done.returncode == 0, done.stderr
        twice = subprocess.run([script, "up", "1"], capture_output=True, text=True, check=False)
        assert twice.returncode == 2
        assert "run local_cluster.sh down first" in twice.stderr
    finally:
        subprocess.run([script, "down"], check=False)
    assert not folder.exists()
    assert not subprocess.run(["pgrep", "-f", str(folder)], capture_output=True).stdout


def test_slurm_job(tmp_path: Path) -> None:
    """Its driver sees all nodes and gets SIGTERM, and its exit code is that of the job."""
    for name, text in {
        "srun": SRUN,
        "ray": f'#!/bin/sh\nexec {RAY} "$@"\n',
        "python3": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        "driver": f"#!{sys.executable}{DRIVER}",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    job = str(os.getpid())
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "MMLAB_JOBS": str(tmp_path / "jobs"),
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "2",
    }
    environment.pop("RAY_AUTH_TOKEN", None)
    command = ["bash", str(DOCKER / "slurm" / "mmlab.sbatch"), str(tmp_path / "driver")]
    with (tmp_path / "log").open("w") as log:
        batch = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        text = ""
        deadline = time.monotonic() + 300
        while "driver:" not in text:
            assert batch.poll() is None and time.monotonic() < deadline, text
            time.sleep(0.5)
            text = (tmp_path / "log").read_text()
        assert "Ray runs on 2 of 2 nodes" in text
        assert "driver: 2 nodes, 4.0 CPUs" in text
        batch.send_signal(signal.SIGTERM)
        assert batch.wait(timeout=120) == 3
    finally:
        batch.terminate()
        batch.wait(timeout=60)
    assert "the driver ended with exit code 3" in (tmp_path / "log").read_text()
    assert not list((tmp_path / "jobs").iterdir())
    assert not Path(f"/tmp/mmlab-{job}").exists()
    assert not subprocess.run(["pgrep", "-f", f"/tmp/mmlab-{job}"], capture_output=True).stdout
