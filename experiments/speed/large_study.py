"""A study of thousands of trials: how long MLflow's page and `mmlab report` take to show it.

    python experiments/speed/large_study.py --trials 2000

Computes one method in as many replicates on small real cells, then times what the MLflow UI asks
its server for when it opens the study's experiment (the first page of runs, newest first), the
study's own page, and the whole report.
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
#: Runs that the UI asks for at a time.
PAGE = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="keep the store there; default: nowhere")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "experiments/results/speed_large_study.parquet"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        row = {"trials": options.trials, **measured(folder, options.trials)}
    for name, value in row.items():
        print(f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value}")
    pd.DataFrame([row]).to_parquet(options.output)


def measured(folder: Path, n_trials: int) -> dict[str, float]:
    """Seconds of the study, of MLflow's pages, and of the report."""
    command = [*MMLAB, "benchmark", "--dataset", "pbmc68k_reduced", "--methods", "random"]
    command += ["-k", "10", "--replicates", str(n_trials), "--json"]
    seconds, printed = timed(command, folder)
    study = json.loads(printed)
    found = {"study_seconds": seconds}
    report = [*MMLAB, "report", study["study"], "-o", "report"]
    found["report_seconds"], _ = timed(report, folder)
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
        while not answers(address):
            time.sleep(0.5)
        run = ask(address, f"runs/get?run_id={study['run_id']}")[1]["run"]
        search = {"experiment_ids": [run["info"]["experiment_id"]], "max_results": PAGE}
        found["runs_page_seconds"] = min(ask(address, "runs/search", search)[0] for _ in range(3))
        page = f"runs/get?run_id={study['run_id']}"
        found["study_page_seconds"] = min(ask(address, page)[0] for _ in range(3))
    finally:
        server.terminate()
        server.wait()
    return found


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Seconds of a command, and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - started, done.stdout


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(address: str, call: str, content: Any = None) -> tuple[float, Any]:
    """Seconds of a request to MLflow's interface, and its answer."""
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/{call}", data, {"Content-Type": "application/json"}
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return time.perf_counter() - started, json.loads(text)


if __name__ == "__main__":
    main()
