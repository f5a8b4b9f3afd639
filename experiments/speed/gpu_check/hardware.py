"""Versions, GPU, copy bandwidth, and the time of the matrix products of a step."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import torch

from .harness import ROOT, Check

PACKAGES = (
    *("triton", "numpy", "pandas", "scikit-learn", "scipy", "anndata", "pydantic", "lassonet"),
    *("scanpy", "pytest", "hypothesis", "pytest-timeout", "ray", "mlflow", "optuna"),
)


def environment(check: Check) -> dict[str, Any]:
    """Return versions, what Triton needs to compile a kernel, the GPU and the commit."""
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    result: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": check.device,
        "c_compiler": shutil.which("gcc") or shutil.which("clang"),
        "has_python_header": header.exists(),
    }
    for package in PACKAGES:
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            result[package] = "not installed"
    if check.cuda:
        gpu = torch.cuda.get_device_properties(0)
        result["gpu"] = gpu.name
        result["gpu_mib"] = gpu.total_memory / 2**20
        result["gpu_free_mib"] = torch.cuda.mem_get_info()[0] / 2**20
        result["gpu_multiprocessors"] = gpu.multi_processor_count
        result["compute_capability"] = f"{gpu.major}.{gpu.minor}"
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%H"]
    result["commit"] = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return result


def bandwidth(check: Check) -> dict[str, Any]:
    """Measure copy bandwidth in GB/s, and the batched products of a step in milliseconds.

    The products have the shapes of ten models on 4,581 genes with 500 hidden units.
    """
    n_bytes = (1 if check.small else 1024) * 2**20
    source = torch.randn(n_bytes // 4, device=check.device)
    target = torch.empty_like(source)
    copy_ms = check.median_ms(target.copy_, source)
    result = {"copy_gb_per_s": 2 * n_bytes / copy_ms / 1e6}
    n_genes, hidden_size = (100, 16) if check.small else (4581, 500)
    for name, dtype, precision in (
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bfloat16", torch.bfloat16, "high"),
    ):
        torch.set_float32_matmul_precision(precision)
        for batch_size in (64, 128):
            x = torch.randn(10, batch_size, n_genes, device=check.device).to(dtype)
            weight = torch.randn(10, hidden_size, n_genes, device=check.device).to(dtype)
            gradient = torch.randn(10, batch_size, hidden_size, device=check.device).to(dtype)
            shape = f"{name}, batch size {batch_size}"
            result[f"{shape}, forward, ms"] = check.median_ms(torch.bmm, x, weight.mT)
            result[f"{shape}, weight gradient, ms"] = check.median_ms(torch.bmm, gradient.mT, x)
    torch.set_float32_matmul_precision("highest")
    return result
