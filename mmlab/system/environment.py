"""Where something was computed: versions, processors, GPUs; what a report has to say of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import mmlab

#: Packages whose versions can change a result.
PACKAGES = (
    *("torch", "numpy", "scipy", "scikit-learn", "scanpy", "anndata", "lassonet", "cosg"),
    *("ray", "optuna", "mlflow"),
)


def environment() -> dict[str, Any]:
    """Version of mmlab, of Python and of the packages; CPUs and GPUs of this machine.

    ``arithmetic`` is what its CPUs calculate with, AVX2 or AVX512 and perhaps bfloat16: it decides
    how sums are rounded.
    """
    import torch

    return {
        "mmlab": mmlab.__version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "arithmetic": torch.backends.cpu.get_cpu_capability()
        + (", bfloat16" if fast_in_bfloat16("cpu") else ""),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def fast_in_bfloat16(device: str) -> bool:
    """Whether a device multiplies matrices in bfloat16 faster than in float32."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of torch do not tell.
    tell: Callable[[], dict[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    can = tell()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
