"""Trials a second, and memory of the driver, for many trials that do nothing on many nodes.

    python experiments/speed/cluster_size.py --trials 10000 --nodes 64

Starts a Ray cluster of processes of this machine, and runs `mmlab benchmark` on it with
one method in that many replicates. Everything is real but the work: each worker computes its first
replicate, and returns copies of its result for the others. So the driver, Ray Tune, the messages of
the workers and the tracking store set the pace. Then `mmlab report` is measured.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

ROOT = Path(__file__).parents[2]
#: Seconds between two looks at the driver.
INTERVAL = 5.0
#: Starts mmlab with workers that do nothing.
DRIVER = """
import sys
sys.path.insert(0, {folder!r})
import cloudpickle, cluster_size
cloudpickle.register_pickle_by_value(cluster_size)
from mmlab.schedule import submit
submit.ComparisonActor = cluster_size.idle_actor()
from mmlab.cli import main
main()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--slots", type=int, default=1, help="trials at the same time on a node")
    parser.add_argument("--uri", help="tracking server; default: SQLite")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "experiments/results/speed_cluster_size.parquet"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, Path(folder))
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.1f}".format))
    table.to_parquet(options.output)


def idle_actor() -> type[Any]:
    """Return the class of workers that compute one replicate and return copies of its result."""
    from dataclasses import replace

    from mmlab.schedule.actor import ComparisonActor
    from mmlab.trial.outcome import Outcome

    class IdleActor(ComparisonActor):
        result: Any = None

        def _run_epochs(self, trials: Any) -> Any:
            if self.result is None:
                yield from super()._run_epochs(trials)
                self.result = trials[0].result()
                return
            for trial in trials:
                result = replace(self.result, spec=trial.spec, digest=trial.digest)
                self._report(
                    trial, Outcome.COMPLETE, score=0.0, seconds=0.0, result=result.to_json()
                )

    return IdleActor


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """Run the study; return what was seen every few seconds."""
    importlib.import_module("mmlab.schedule")  # sets what Ray reads when it is imported
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ["OMP_NUM_THREADS"] = "1"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for number in range(options.nodes):
            cluster.add_node(num_cpus=options.slots, node_name=f"node {number}", wait=False)
        cluster.wait_for_nodes(timeout=600)
        metrics = folder / "study.prom"
        command = ["benchmark", "--dataset", "pbmc68k_reduced", "--methods", "random", "-k", "10"]
        command += ["--replicates", str(options.trials), "--address", cluster.address]
        command += ["--metrics", str(metrics)]
        command += ["--tracking-uri", options.uri] if options.uri else []
        script = DRIVER.format(folder=str(Path(__file__).parent))
        with (folder / "log").open("w") as log:
            driver = psutil.Popen(
                [sys.executable, "-c", script, *command], cwd=folder, stdout=log, stderr=log
            )
            rows = list(watch(driver, metrics))
        if driver.returncode != 0:
            sys.exit((folder / "log").read_text()[-3000:])
    finally:
        cluster.shutdown()
    started = time.perf_counter()
    (study,) = set(re.findall(r'study="([^"]*)"', metrics.read_text()))
    report = [sys.executable, "-m", "mmlab", "report", study, "-o", "report"]
    report += ["--tracking-uri", options.uri] if options.uri else []
    subprocess.run(report, cwd=folder, check=True, capture_output=True)
    print(f"report: {time.perf_counter() - started:.0f} s")
    return rows


def watch(driver: psutil.Popen, metrics: Path) -> Any:
    """Yield the state of the driver until it ends."""
    started = time.monotonic()
    while driver.poll() is None:
        time.sleep(INTERVAL)
        values = dict(read_metrics(metrics))
        if not values:
            continue
        try:
            memory = driver.memory_info().rss / 1e6
            processor = sum(driver.cpu_times()[:2])
        except psutil.Error:
            return
        yield {
            "seconds": time.monotonic() - started,
            "ended": values["mmlab_trials_finished_total"],
            "unsent": values["mmlab_unsent_trials"],
            "driver_mb": memory,
            "driver_cpu_seconds": processor,
        }


def read_metrics(path: Path) -> Any:
    """Yield name and value of each metric of a study."""
    if path.exists():
        for line in path.read_text().splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                yield name.split("{")[0], float(value)


if __name__ == "__main__":
    main()
