"""Run of Ray Tune over the configurations of a study."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from mmlab.schedule.actor import Actor
from mmlab.schedule.driver_callback import DriverCallback
from mmlab.schedule.elastic_limit import ElasticLimit
from mmlab.schedule.node_check import error_line
from mmlab.schedule.ray_cluster import RayCluster
from mmlab.schedule.time_limit import TimeLimit
from mmlab.system.interruption import Interruption

#: How often a configuration is started again in a round after its worker died.
_RETRIES = 1
#: Configurations of a round of a grid: at least, and for each trial that runs at the same time.
#: Tune keeps all of a round in memory, and a round ends with its slowest trial.
_MIN_ROUND, _ROUND_PER_SLOT = 1000, 50
#: Rounds in which trials are lost and none ends, after which the study ends.
_MAX_FRUITLESS = 3
#: Seconds in which the watch notices that a process of Ray has ended.
_SECONDS_TO_NOTICE = 5.0


class Recorder(DriverCallback):
    """Base class of Tune callbacks that record ended trials on the driver.

    A round is a run of Tune. Trials that are lost in it, because their worker or machine failed,
    have not ended and are run again; those that exceeded the time limit twice have failed.
    A subclass records these in ``_fail``.

    Attributes
    ----------
    ended
        Configurations of the trials that have ended since :meth:`start_round`.
    reason
        Why the last trial was lost; empty if none was in this round.
    time_limit
        The callback that ends trials which take too long.
    fruitless
        Number of rounds in a row in which trials were lost and none has ended.
    """

    def __init__(self) -> None:
        self.ended: list[dict[str, Any]] = []
        self.reason = ""
        self.time_limit = TimeLimit(None)
        self.fruitless = 0

    def start_round(self, minutes_per_trial: float | None) -> None:
        """Forget the trials of the round before."""
        self.ended.clear()
        self.reason = ""
        self.time_limit = TimeLimit(minutes_per_trial)

    def end_round(self) -> None:
        """Count the round if it was fruitless."""
        self.fruitless = self.fruitless + 1 if self.reason and not self.ended else 0

    def on_trial_error(self, iteration: int, trials: Any, trial: Trial, **_: Any) -> None:
        """Note a lost trial, after the last retry; actors report failures of trials as results."""
        if reason := self.time_limit.reason(trial):
            self.ended.append(trial.config)
            self._fail(trial, reason)
            return
        # Tune's own accessor reads a copy of the trial's folder, which is brought up to date later.
        path = trial.error_file
        text = Path(path).read_text() if path and Path(path).exists() else ""
        self.reason = error_line(text or "the worker process died")

    def on_trial_complete(self, iteration: int, trials: Any, trial: Trial, **_: Any) -> None:
        """Note an ended trial."""
        self.ended.append(trial.config)

    def _fail(self, trial: Trial, reason: str) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class TuneRun:
    """Settings shared by all Tune runs of a study.

    Attributes
    ----------
    name
        Name of the study.
    actor
        Class of the actors that run the configurations.
    shared
        Keyword arguments of ``actor.setup``, in addition to ``threads``.
    recorder
        Tune callback that receives the results on the driver.
    cluster
        The Ray cluster that runs the actors.
    """

    name: str
    actor: type[Actor]
    shared: dict[str, Any]
    recorder: Recorder
    cluster: RayCluster

    @cached_property
    def _actor_with_data(self) -> Any:
        """The actor with what is shared, which Tune puts into the object store for good."""
        threads = self.cluster.resources.cpus_per_trial
        return tune.with_parameters(self.actor, threads=threads, **self.shared)

    def run_each(self, name: str, values: Sequence[Any], **fixed: Any) -> None:
        """Run one trial per value of a parameter, in rounds, until all have ended.

        Raises
        ------
        KeyboardInterrupt
            See :meth:`fit`.
        """
        while values:
            size = max(_MIN_ROUND, _ROUND_PER_SLOT * self.cluster.max_slots)
            self.fit(fixed | {name: tune.grid_search(list(values[:size]))})
            ended = {json.dumps(config[name], sort_keys=True) for config in self.recorder.ended}
            values = [v for v in values if json.dumps(v, sort_keys=True) not in ended]

    def fit(
        self, space: dict[str, Any], *, searcher: Searcher | None = None, **config: Any
    ) -> bool:
        """Run the configurations of a parameter space once.

        Parameters
        ----------
        space
            Tune's parameter space.
        searcher
            Proposes the configurations; None: all those of a grid in ``space``.
        config
            Further arguments of ``tune.TuneConfig``: scheduler, num_samples.

        Returns
        -------
        Whether trials were lost, which are to be run again.

        Raises
        ------
        KeyboardInterrupt
            Trials were lost again and again, and no other one ended meanwhile: the study ends.
        """
        resources = self.cluster.resources
        trainable = tune.with_resources(self._actor_with_data, self.cluster.placement())
        self.recorder.start_round(resources.minutes_per_trial)
        limit = ElasticLimit(self.cluster, searcher)
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                search_alg=limit.search_algorithm, reuse_actors=True, **config
            ),
            run_config=tune.RunConfig(
                name=self.name,
                storage_path=tempfile.mkdtemp(prefix="tune-", dir=self.cluster.folder),
                callbacks=[
                    self.recorder,
                    self.recorder.time_limit,
                    _StopWhenInterrupted(self.cluster.interruption),
                    limit,
                ],
                # A trial takes minutes: an interrupted one starts again from its first epoch.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=_RETRIES),
                verbose=0,
            ),
        )
        try:
            _call_in_thread(tuner.fit)
        except RuntimeError as error:
            # Ray ends workers before the memory is used up. Tune knows no such error, and gives up.
            if not isinstance(error.__cause__, OutOfMemoryError):
                raise
            self.recorder.reason = "the machine ran out of memory"
        self.recorder.end_round()
        if self.recorder.reason:
            self._prepare_next_round()
        return bool(self.recorder.reason)

    def _prepare_next_round(self) -> None:
        """Leave out nodes that have become unusable; end the study after fruitless rounds."""
        self.cluster.exclude_nodes()
        if self.recorder.fruitless < _MAX_FRUITLESS:
            return
        self.cluster.interruption.end(
            f"No trial could be run to its end, in {_MAX_FRUITLESS} attempts: "
            f"{self.recorder.reason}.{self.cluster.left_out}"
        )


class _StopWhenInterrupted(DriverCallback):
    """Stops Tune for good once the study is interrupted, so that it uses a lost Ray no further."""

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption

    def on_step_begin(self, iteration: int, trials: Any, **_: Any) -> None:
        """Wait for the end of the process, which is near."""
        if self.interruption.requested:
            threading.Event().wait()


def _call_in_thread(function: Callable[[], Any]) -> None:
    """Call a function in a thread, so that signals interrupt the caller at any time.

    Calls of Ray block for a minute, and handle no signal, once its GCS is gone.
    """
    errors: list[Exception] = []

    def call() -> None:
        try:
            function()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=call, name="tune", daemon=True)
    thread.start()
    thread.join()
    for error in errors:
        # If Ray is lost, the watch interrupts this pause, and the study ends in order.
        time.sleep(_SECONDS_TO_NOTICE)
        raise error
