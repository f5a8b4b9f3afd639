"""Commands as jobs of a real cluster, with a token and a tracking server that has a password."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from processes import SMALL, keep_ray_token, run_mmlab
from servers import free_port, server

NEEDED = ("aiohttp_cors", "grpc", "opencensus", "prometheus_client", "virtualenv")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.cluster,
    pytest.mark.skipif(bool(MISSING), reason=f"Ray's dashboard needs {', '.join(MISSING)}"),
]

SECRET = "s3cr3tPassw0rd"
BENCHMARK = ["benchmark", *SMALL, "--methods", "random"]


@contextmanager
def head(folder: Path, port: int, dashboard: int) -> Iterator[None]:
    """Run the head of a cluster with its dashboard; the folder gets its output and session."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--num-cpus", "2", "--node-name", "head", "--temp-dir", str(folder)]
    command += ["--include-dashboard", "true", "--dashboard-host", "127.0.0.1"]
    ports = {"port": port, "dashboard-port": dashboard}
    for name in ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port"):
        ports[name] = free_port()
    for name, number in ports.items():
        command += [f"--{name}", str(number)]
    # Entry points of jobs are commands of the shell.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "RAY_AUTH_MODE": "token"}
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def jobs_of(address: str) -> str:
    """Return what the dashboard tells of its jobs."""
    token = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/api/jobs/", headers=token)) as r:
        return str(r.read().decode())


def test_a_command_as_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started once, followed, with its exit code; stopped in order; no password is shown."""
    keep_ray_token()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "genes.txt").write_text("HES4\n")
    session = Path(tempfile.mkdtemp(dir="/tmp"))  # the paths of sockets must be short
    tracking, port, dashboard = free_port(), free_port(), free_port()
    address = f"http://127.0.0.1:{dashboard}"
    store = ["--tracking-uri", f"http://user:{SECRET}@127.0.0.1:{tracking}"]
    submit = ["submit", "--address", address]
    try:
        with server(tmp_path, tracking), head(session, port, dashboard):
            command = [*submit, "--", *BENCHMARK, *store, "--include", "genes.txt"]
            done = run_mmlab(tmp_path, *command)
            for _ in range(60):
                if "no Ray dashboard responds" not in done.stderr:
                    break
                time.sleep(1)
                done = run_mmlab(tmp_path, *command)
            assert done.returncode == 0, done.stderr + done.stdout
            assert "was started" in done.stderr
            assert "Study benchmark-" in done.stdout
            again = run_mmlab(tmp_path, *command)
            assert again.returncode == 0, again.stderr
            assert "has finished already, and is not started again" in again.stderr
            assert again.stdout == done.stdout

            wrong = run_mmlab(tmp_path, *submit, "--", *BENCHMARK, *store, "-k", "9999")
            assert wrong.returncode == 2, wrong.stderr
            assert "has 765 genes" in wrong.stdout
            assert re.search(r"^Job \S+: FAILED, exit code 2\.$", wrong.stderr, flags=re.MULTILINE)

            tune = ["tune", *SMALL, "--trials", "500", "--epochs", "5", "--name", "long", *store]
            detached = run_mmlab(tmp_path, *submit, "--detach", "--json", "--", *tune)
            job = json.loads(detached.stdout)["job"]
            wait_for_trials(tracking)
            second = run_mmlab(tmp_path, *submit, "--detach", "--json", "--", *tune)
            first = run_mmlab(tmp_path, *submit, "--status", job)
            assert json.loads(second.stdout)["job"] == job, first.stdout + job_log(session, job)
            assert "runs already, and is not started again" in second.stderr
            status = run_mmlab(tmp_path, *submit, "--status", job)
            assert status.stdout.startswith(f"Job {job}: RUNNING")
            assert run_mmlab(tmp_path, *submit, "--stop", job).returncode == 0
            stopped = run_mmlab(tmp_path, *submit, "--logs", job)
            assert stopped.returncode == 130, stopped.stderr
            assert "Finished trials are kept; resume with: mmlab tune --resume" in stopped.stdout
            assert statuses(tracking)["long"] == "KILLED"
            assert "RUNNING" not in statuses(tracking).values()

            node = ["--address", f"127.0.0.1:{port}"]
            checked = run_mmlab(tmp_path, "cluster", "check", *node)
            assert checked.returncode == 0, checked.stderr
            assert re.search(r"^ *head .* ok *$", checked.stdout, flags=re.MULTILINE)
            doctor = run_mmlab(tmp_path, "doctor", *node, *store)
            assert doctor.returncode == 0, doctor.stderr
            assert "cluster: 1 node, 2 CPUs, 0 GPUs" in doctor.stdout

            outputs = [done, again, wrong, detached, second, status, stopped, doctor]
            printed = "".join(each.stdout + each.stderr for each in outputs)
            assert SECRET not in jobs_of(address) + printed
            monkeypatch.setenv("RAY_AUTH_TOKEN", os.environ["RAY_AUTH_TOKEN"][::-1])
            refused = run_mmlab(tmp_path, *submit, "--status", job)
            assert refused.returncode == 2
            assert f"the Ray cluster at {address} requires the token of its head" in refused.stderr
        written = [path for path in session.rglob("*") if path.is_file()]
        assert any(path.name.startswith("job-driver-") for path in written)
        assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
    finally:
        shutil.rmtree(session)


def job_log(session: Path, job: str) -> str:
    """Return the log of a job, for the message of a failed test."""
    (log,) = session.glob(f"session_2*/logs/job-driver-{job}.log")
    return log.read_text()


def runs(port: int) -> list[tuple[str, str]]:
    """Return name and status of the runs of a tracking server."""
    client = MlflowClient(f"http://127.0.0.1:{port}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = client.search_runs(experiments, max_results=1000)
    return [(str(run.info.run_name), str(run.info.status)) for run in found]


def statuses(port: int) -> dict[str, str]:
    return dict(runs(port))


def wait_for_trials(port: int) -> None:
    """Wait until trials of the search have ended."""
    deadline = time.monotonic() + 300
    while not [name for name, _ in runs(port) if name.startswith("markermap_supervised")]:
        assert time.monotonic() < deadline, runs(port)
        time.sleep(1)
