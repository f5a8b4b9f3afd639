"""Software versions and hardware of this machine, for reports."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mmlab
from mmlab.system.devices import has_fast_bfloat16
from mmlab.system.threads import usable_cpus

#: Packages whose version can affect results.
PACKAGES = (
    *("torch", "numpy", "scipy", "scikit-learn", "scanpy", "anndata", "lassonet", "cosg"),
    *("ray", "optuna", "mlflow"),
)


def describe_environment() -> dict[str, Any]:
    """Return the versions of mmlab, Python and :data:`PACKAGES`, and the CPUs and GPUs.

    ``arithmetic`` is the instruction set of the CPU (such as AVX2 or AVX512) and whether it
    supports bfloat16: it determines how sums are rounded.
    """
    import torch

    return {
        "mmlab": mmlab.__version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": usable_cpus(),
        "arithmetic": torch.backends.cpu.get_cpu_capability()
        + (", bfloat16" if has_fast_bfloat16("cpu") else ""),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def source_commit() -> dict[str, str]:
    """Return the git commit of mmlab as an MLflow tag; {} if it does not run from a checkout."""
    folder = Path(mmlab.__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return {}
    commit = git("rev-parse", "HEAD")
    return {} if commit is None else {"mlflow.source.git.commit": commit}
