"""Peak memory of a computation, and available memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import psutil

from mmlab.system.control_groups import free_memory

_MB = 2**20


class PeakMemory:
    """Peak resident memory of this process, and peak GPU memory, since the object was created.

    Only Linux can reset the peak of a process. On other systems the peak resident memory is the
    one since the start of the process.
    """

    def __init__(self) -> None:
        try:
            # Resets the peak (VmHWM) to the current resident memory.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            self._since_start = True
        else:
            self._since_start = False
        if (gpu := _gpu()) is not None:
            gpu.reset_peak_memory_stats()

    def read(self) -> dict[str, float]:
        """Return ``peak_memory_mb``, and ``peak_gpu_memory_mb`` if the GPU was used, in MiB."""
        peaks = {"peak_memory_mb": self._peak_resident()}
        if (gpu := _gpu()) is not None:
            peaks["peak_gpu_memory_mb"] = gpu.max_memory_allocated() / _MB
        return peaks

    def _peak_resident(self) -> float:
        if not self._since_start:
            for line in Path("/proc/self/status").read_text(errors="replace").splitlines():
                if line.startswith("VmHWM:"):
                    return float(line.split()[1]) / 1024
        # In bytes on macOS, in KiB elsewhere.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (_MB if sys.platform == "darwin" else 1024)


def _gpu() -> Any:
    """Return ``torch.cuda`` if this process has used it, otherwise None; do not import torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that an allocation failed, in main memory or on a GPU.

    PyTorch raises a plain ``RuntimeError`` if main memory does not suffice.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def available_memory() -> int:
    """Return the memory in bytes that this process can still get, on this machine or in its group.

    A control group (container, job of a cluster) may allow less than the machine has.
    """
    return max(int(min([float(psutil.virtual_memory().available), *free_memory()])), 0)
