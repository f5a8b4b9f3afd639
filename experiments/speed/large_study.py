"""Response times of MLflow and of `mmlab report` for a study of thousands of trials.

    python experiments/speed/large_study.py --trials 2000

Runs one method in that many replicates on a small real dataset. Then measures the requests that the
MLflow UI sends to its server to open the study's experiment (the first page of runs, newest first)
and the page of the study's run, and the time of the whole report.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parents[2]
MMLAB = [sys.executable, "-m", "mmlab"]
#: Runs per page in the UI.
PAGE = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument(
        "--folder", type=Path, help="folder of the tracking database; default: a temporary one"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "experiments/results/speed_large_study.parquet"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        row = {"trials": options.trials, **measure(folder, options.trials)}
    for name, value in row.items():
        print(f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value}")
    pd.DataFrame([row]).to_parquet(options.output)


def measure(folder: Path, n_trials: int) -> dict[str, float]:
    """Return the seconds of the study, of the report, and of MLflow's pages."""
    command = [*MMLAB, "benchmark", "--dataset", "pbmc68k_reduced", "--methods", "random"]
    command += ["-k", "10", "--replicates", str(n_trials), "--json"]
    study_seconds, printed = timed(command, folder)
    study = json.loads(printed)
    seconds = {"study_seconds": study_seconds}
    report = [*MMLAB, "report", study["study"], "-o", "report"]
    seconds["report_seconds"], _ = timed(report, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    serve += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(serve, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        while not is_healthy(address):
            time.sleep(0.5)
        run = request(address, f"runs/get?run_id={study['run_id']}")[1]["run"]
        search = {"experiment_ids": [run["info"]["experiment_id"]], "max_results": PAGE}
        seconds["runs_page_seconds"] = min(
            request(address, "runs/search", search)[0] for _ in range(3)
        )
        page = f"runs/get?run_id={study['run_id']}"
        seconds["study_page_seconds"] = min(request(address, page)[0] for _ in range(3))
    finally:
        server.terminate()
        server.wait()
    return seconds


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Run a command; return its seconds and its standard output."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - started, done.stdout


def is_healthy(address: str) -> bool:
    """Whether the MLflow server answers."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def request(address: str, endpoint: str, content: Any = None) -> tuple[float, Any]:
    """Send a request to MLflow's REST API; return its seconds and the decoded response."""
    data = None if content is None else json.dumps(content).encode()
    message = urllib.request.Request(
        f"{address}/api/2.0/mlflow/{endpoint}", data, {"Content-Type": "application/json"}
    )
    started = time.perf_counter()
    with urllib.request.urlopen(message) as response:
        text = response.read()
    return time.perf_counter() - started, json.loads(text)


if __name__ == "__main__":
    main()
