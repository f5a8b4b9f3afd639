"""Where something was computed: versions, processors, GPUs; what a report has to say of it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import mmlab

#: Packages whose versions can change a result.
PACKAGES = (
    *("torch", "numpy", "scipy", "scikit-learn", "scanpy", "anndata", "lassonet", "cosg"),
    *("ray", "optuna", "mlflow"),
)


def environment() -> dict[str, Any]:
    """Version of mmlab, of Python and of the packages; CPUs and GPUs of this machine."""
    import torch

    return {
        "mmlab": mmlab.__version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
