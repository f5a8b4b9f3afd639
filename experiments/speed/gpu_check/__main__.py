"""Command line of the GPU check: run the sections in order, within a budget of seconds."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from .harness import Check

Section = Callable[[Check], dict[str, Any]]

#: Seconds that must be left for a section to start; 15 for those not listed.
SECONDS_NEEDED = {"repository_tests": 60, "shared_gpu": 60, "cells_on_disk": 20, "methods": 30}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small data, for a dry run on a CPU")
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--budget", type=float, default=400.0, help="seconds for all sections")
    parser.add_argument("--only", nargs="+", metavar="SECTION", help="run these sections only")
    parser.add_argument("--skip", nargs="+", metavar="SECTION", default=[])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    check = Check(
        options.device, options.small, options.output.resolve(), options.budget, options.child
    )
    # Both are read when torch and Triton are imported, so they are set before any section is.
    if not check.cuda:
        os.environ["TRITON_INTERPRET"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "4" if check.cuda else "1")
    warnings.simplefilter("ignore")
    sections = all_sections()
    unknown = {*(options.only or []), *options.skip} - sections.keys()
    if unknown:
        parser.error(f"unknown sections {sorted(unknown)}; sections: {', '.join(sections)}")
    for name in options.only or sections:
        if name not in options.skip:
            run_section(check, name, sections[name])
    check.results["total_s"] = time.perf_counter() - check.started
    check.save()
    if not check.child:
        print_summary(check.results)
    return int(any(failed(result) for result in check.results.values()))


def all_sections() -> dict[str, Section]:
    """Return the sections by name, in the order in which they run."""
    from . import cpu_agreement, cuda_graphs, gpu_memory, gpu_speed, hardware, kernels, training
    from .real_cells import real_cells
    from .repository_tests import repository_tests

    return {
        "environment": hardware.environment,
        "bandwidth": hardware.bandwidth,
        "kernels": kernels.kernels,
        "no_compiler": kernels.no_compiler,
        "graphs": cuda_graphs.graphs,
        "failed_capture": cuda_graphs.failed_capture,
        "same_random_numbers": cpu_agreement.same_random_numbers,
        "own_random_numbers": cpu_agreement.own_random_numbers,
        "real_cells": real_cells,
        "speed": gpu_speed.speed,
        "out_of_memory": gpu_memory.out_of_memory,
        "methods": training.methods,
        "range_test": training.range_test,
        "device_names": training.device_names,
        "cells_on_disk": training.cells_on_disk,
        "repository_tests": repository_tests,
        "shared_gpu": gpu_memory.shared_gpu,
    }


def run_section(check: Check, name: str, section: Section) -> None:
    """Run one section and store its result, or why there is none."""
    from .internals import without_triton_kernels

    left = check.seconds_left()
    if left < SECONDS_NEEDED.get(name, 15):
        check.results[name] = {"skipped": f"{left:.0f} s left"}
        check.save()
        return
    started = time.perf_counter()
    # On a CPU the kernels are interpreted, which is slow: only their own section uses them.
    plain = nullcontext() if check.cuda or name == "kernels" else without_triton_kernels()
    try:
        with plain:
            check.results[name] = section(check)
    except Exception as error:
        # What a section has stored before it raised stays.
        check.results[name] = check.results.get(name, {}) | {
            "ok": False,
            "error": f"{type(error).__name__}: {str(error)[:500]}",
            "traceback": traceback.format_exc()[-2500:],
        }
    check.results[name]["section_s"] = round(time.perf_counter() - started, 2)
    check.save()
    if not check.child:
        print(f"{name}: {json.dumps(single_values(check.results[name]))}", flush=True)


def single_values(result: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers, flags and short texts of a section's result, without its tables."""
    single = {key: value for key, value in result.items() if isinstance(value, (int, float, str))}
    return {key: value for key, value in single.items() if len(str(value)) < 160}


def failed(result: Any) -> bool:
    """Whether a section raised or found an error."""
    return isinstance(result, dict) and result.get("ok") is False


def print_summary(results: dict[str, Any]) -> None:
    """Print one line per section, and one line per measured training."""
    print("---- summary")
    for name, result in results.items():
        if isinstance(result, dict):
            status = "FAILED" if failed(result) else "skipped" if "skipped" in result else "done"
            print(f"{name:20s} {status}  {result.get('section_s', 0)} s")
    for run in results.get("speed", {}).get("runs", []):
        print(
            f"{run['run']:34s} {run['ms_per_step_with_evaluation']:.3f} ms per step, lower bound "
            f"{run.get('lower_bound_ms_per_step', 0):.3f}; whole training "
            f"{run['whole_training_s']:.1f} s; {run.get('allocated_mib', 0):.0f} MiB allocated, "
            f"{run['estimated_mib_per_model'] * run['n_models']:.0f} MiB estimated"
        )


if __name__ == "__main__":
    sys.exit(main())
