"""Options, results, timing and child processes of the GPU check."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[3]


@dataclass
class Check:
    """One run of the GPU check.

    Attributes
    ----------
    device
        ``cuda``, ``cuda:0``, ... or ``cpu``.
    small
        Use small data, for a dry run on a CPU.
    output
        JSON file of the results.
    budget
        Seconds for all sections.
    child
        Whether this process was started by :meth:`run_in_child`.
    results
        Result of each section that has ended.
    """

    device: str
    small: bool
    output: Path
    budget: float
    child: bool = False
    started: float = field(default_factory=time.perf_counter)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    def seconds_left(self) -> float:
        """Return the rest of the budget in seconds."""
        return self.budget - (time.perf_counter() - self.started)

    def save(self) -> None:
        """Write the results so far."""
        text = json.dumps(self.results, indent=1, default=str)
        self.output.write_text(text + "\n", encoding="utf-8")

    def synchronize(self) -> None:
        """Wait for all kernels that were launched."""
        import torch

        if self.cuda:
            torch.cuda.synchronize()

    def median_ms(
        self, function: Callable[..., Any], *arguments: Any, repeats: int = 20, warm_up: int = 3
    ) -> float:
        """Return the median duration of a call in milliseconds, after ``warm_up`` calls."""
        import torch

        for _ in range(warm_up):
            function(*arguments)
        self.synchronize()
        durations: list[float] = []
        for _ in range(repeats):
            if self.cuda:
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                function(*arguments)
                end.record()
                end.synchronize()
                durations.append(start.elapsed_time(end))
            else:
                started = time.perf_counter()
                function(*arguments)
                durations.append(1e3 * (time.perf_counter() - started))
        return median(durations)

    def reset_peak_memory(self) -> None:
        """Free torch's cached GPU memory and start a new peak."""
        import torch

        if self.cuda:
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_memory(self) -> dict[str, float]:
        """Return the peaks of allocated and reserved GPU memory in MiB; empty on a CPU."""
        import torch

        if not self.cuda:
            return {}
        return {
            "allocated_mib": torch.cuda.max_memory_allocated() / 2**20,
            "reserved_mib": torch.cuda.max_memory_reserved() / 2**20,
        }

    def run_in_child(self, section: str, limit: float, copy: int = 0) -> dict[str, Any]:
        """Run a section in its own process and return its result.

        Parameters
        ----------
        section
            Name of the section; it finds ``child`` true.
        limit
            Seconds until the process is ended.
        copy
            Number of the process where several run at the same time.
        """
        output = self.output.with_name(f"{self.output.stem}_{section}_{copy}.json")
        output.unlink(missing_ok=True)
        command = [sys.executable, "-m", __package__, "--device", self.device, "--child"]
        command += ["--only", section, "--output", str(output), "--budget", str(limit)]
        command += ["--small"] if self.small else []
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return {"ok": False, "error": f"not finished after {limit} s"}
        if not output.exists():
            return {"ok": False, "exit_code": done.returncode, "stderr": done.stderr[:3000]}
        result: dict[str, Any] = json.loads(output.read_text(encoding="utf-8")).get(section, {})
        output.unlink()
        return result | {"exit_code": done.returncode}


@contextmanager
def logged_warnings() -> Iterator[list[str]]:
    """Collect the messages that mmlab logs while the block runs."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage()[:300])

    collector, logger = Collector(logging.WARNING), logging.getLogger("mmlab")
    logger.addHandler(collector)
    try:
        yield messages
    finally:
        logger.removeHandler(collector)
