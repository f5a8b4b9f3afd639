"""How much memory a piece of work took at its peak, and how much there is."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import psutil

_MB = 2**20


class PeakMemory:
    """The largest resident memory of this process, and of its GPU, since this was made.

    Where the system keeps one mark for the life of a process and cannot lower it (all but
    Linux), the process counts from its start.
    """

    def __init__(self) -> None:
        try:
            # Lowers the mark (VmHWM) to what is resident now.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            self._since_start = True
        else:
            self._since_start = False
        if (gpu := _gpu()) is not None:
            gpu.reset_peak_memory_stats()

    def read(self) -> dict[str, float]:
        """``peak_memory_mb``, and ``peak_gpu_memory_mb`` if the GPU was used, in MiB."""
        peaks = {"peak_memory_mb": self._resident()}
        if (gpu := _gpu()) is not None:
            peaks["peak_gpu_memory_mb"] = gpu.max_memory_allocated() / _MB
        return peaks

    def _resident(self) -> float:
        if not self._since_start:
            for line in Path("/proc/self/status").read_text(errors="replace").splitlines():
                if line.startswith("VmHWM:"):
                    return float(line.split()[1]) / 1024
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / (_MB if sys.platform == "darwin" else 1024)


def _gpu() -> Any:
    """``torch.cuda`` where this process has used it, else None; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def free_memory() -> int:
    """Bytes of memory that nobody uses."""
    return int(psutil.virtual_memory().available)
