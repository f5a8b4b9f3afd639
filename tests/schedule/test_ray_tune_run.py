"""Runs of Ray Tune whose actors die at awkward moments."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmlab.datasets.cells import Cells
from mmlab.schedule.actor import Actor
from mmlab.schedule.cluster import cluster, ray
from mmlab.schedule.ray_tune_run import Recorder, TuneRun, tune
from mmlab.spec.resources import Resources
from mmlab.system.interruption import Interruption

# Imported through mmlab.schedule, which sets environment variables before it imports Ray.
grid = tune.grid_search

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


class DiesWhenReused(Actor):
    """An actor whose process dies once, while it is handed from one configuration to the next."""

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        self.marker = Path(shared["folder"]) / "died"
        super().setup(config, **shared)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        if not self.marker.exists():
            self.marker.touch()
            os._exit(1)
        return super().reset_config(new_config)

    def _start(self, config: dict[str, Any]) -> None:
        self.number = config["number"]

    def step(self) -> dict[str, Any]:
        return {"number": self.number, "done": True}


class Fails(Actor):
    """An actor on a machine with a full disk; configuration 2 needs none."""

    def _start(self, config: dict[str, Any]) -> None:
        self.number = config["number"]

    def step(self) -> dict[str, Any]:
        if self.number == 2:
            return {"number": self.number, "done": True}
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Results(Recorder):
    """Keeps the numbers of complete trials."""

    def __init__(self) -> None:
        super().__init__()
        self.complete: list[int] = []

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        super().on_trial_complete(iteration, trials, trial)
        self.complete.append(trial.last_result["number"])


@pytest.mark.long
def test_trial_whose_reused_actor_dies_is_lost_and_can_be_run_again(
    tmp_path: Path, tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, resources = Results(), Resources(max_concurrent=1)
    shared = {"cells": tiny_cells, "folder": str(tmp_path)}
    with cluster(resources, Interruption(), Console()) as ray_cluster:
        run = TuneRun("study", DiesWhenReused, shared, results, ray_cluster)
        assert run.fit({"number": grid([1, 2, 3])})
        assert sorted(results.complete) == [1, 3]
        run.run_each("number", [2])
        assert sorted(results.complete) == [1, 2, 3]

        # Ray ends a worker because the memory is used up: Tune gives all trials up.
        fit, n_runs = tune.Tuner.fit, []

        def runs_out_of_memory(tuner: Any) -> Any:
            n_runs.append(1)
            if len(n_runs) == 1:
                error = ray.exceptions.OutOfMemoryError("1 worker(s) were killed")
                raise RuntimeError("Caught unexpected exception") from error
            return fit(tuner)

        monkeypatch.setattr(tune.Tuner, "fit", runs_out_of_memory)
        run.run_each("number", [4, 5])
        assert len(n_runs) == 2
    assert sorted(results.complete) == [1, 2, 3, 4, 5]


@pytest.mark.long
def test_failure_of_a_machine_is_not_one_of_the_trial(tmp_path: Path, tiny_cells: Cells) -> None:
    """Trials on a full disk are started again in three rounds, then the study ends."""
    results, resources, interruption = Results(), Resources(max_concurrent=1), Interruption()
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            cluster(resources, interruption, Console()) as ray_cluster,
        ):
            run = TuneRun("study", Fails, {"cells": tiny_cells}, results, ray_cluster)
            run.run_each("number", [1, 2, 3])
    finally:
        # An interrupted command ends its process instead.
        ray.shutdown()
    assert results.complete == [2]
    assert interruption.reason == (
        "No trial could be run to its end, in 3 attempts: "
        "OSError: [Errno 28] No space left on device."
    )
