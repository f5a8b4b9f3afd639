"""Run of Ray Tune over the configurations of a study, and its interruption by signals."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune import Callback

from mmlab.schedule.actor import Actor
from mmlab.spec.resources import Resources

#: How often a configuration is started again after its worker died or raised an error.
_RETRIES = 1


class StudyInterruptedError(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during a study; the message is the name of the study."""


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
    resources
        Resources of each actor.
    slots
        Number of actors that run at the same time.
    """

    name: str
    actor: type[Actor]
    shared: dict[str, Any]
    recorder: Callback
    resources: Resources
    slots: int

    def fit(self, space: dict[str, Any], **config: Any) -> None:
        """Run all configurations of a parameter space.

        Parameters
        ----------
        space
            Tune's parameter space.
        config
            Further arguments of ``tune.TuneConfig``: search algorithm, scheduler, num_samples.
        """
        trainable = tune.with_resources(
            tune.with_parameters(self.actor, threads=self.resources.cpus_per_trial, **self.shared),
            {"cpu": self.resources.cpus_per_trial, "gpu": self.resources.gpus_per_trial},
        )
        with tempfile.TemporaryDirectory(prefix="mmlab-tune-") as folder:
            tuner = tune.Tuner(
                trainable,
                param_space=space,
                tune_config=tune.TuneConfig(
                    max_concurrent_trials=self.slots, reuse_actors=True, **config
                ),
                run_config=tune.RunConfig(
                    name=self.name,
                    storage_path=folder,
                    callbacks=[self.recorder],
                    # A trial takes minutes: an interrupted one starts again from its first epoch.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=_RETRIES),
                    verbose=0,
                ),
            )
            tuner.fit()


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` on SIGTERM, so that runs are closed as after Ctrl-C.

    Enter this after Ray has started: ``ray.init`` installs its own SIGTERM handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
