"""Tests of the repository, run with their tensors on the GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .harness import ROOT, Check

TOP_K, BATCHED = "tests/nn/test_relaxed_top_k.py", "tests/trial/test_batched_fit.py"


def repository_tests(check: Check) -> dict[str, Any]:
    """Run the tests of the relaxed top-k and of batched training on the device.

    Tests of where the kernels run are left out: they expect a CPU. Tests of whole trials are left
    out by the plugin.
    """
    top_k = run_tests(check, TOP_K, 90, "-k", "not kernels")
    batched = run_tests(check, BATCHED, max(30.0, min(120.0, check.seconds_left() - 200)))
    ok = top_k["exit_code"] == 0 and batched["exit_code"] == 0
    return {"ok": ok, "relaxed_top_k": top_k, "batched_training": batched}


def run_tests(check: Check, tests: str, limit: float, *options: str) -> dict[str, Any]:
    """Run the tests of a file for ``limit`` seconds at most."""
    search_path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "GPU_CHECK_DEVICE": check.device,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *search_path])),
    }
    environment.pop("TRITON_INTERPRET", None)
    # conftest.py imports packages that a GPU machine may lack, such as MLflow.
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "pytest_on_device"]
    command += ["-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    command += ["-o", "filterwarnings=default", *options, tests]
    started = time.perf_counter()
    exit_code: int | str
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit
        )
        exit_code, text = done.returncode, done.stdout + done.stderr[-500:]
    except subprocess.TimeoutExpired as error:
        exit_code, text = "timeout", (error.stdout or b"").decode(errors="replace")
    lines = text.strip().splitlines()
    return {
        "exit_code": exit_code,
        "seconds": time.perf_counter() - started,
        "last_line": lines[-1] if lines else "",
        "failed": [line[:300] for line in lines if line.startswith(("FAILED", "ERROR"))][:40],
        "tail": text[-2500:] if exit_code else "",
    }
