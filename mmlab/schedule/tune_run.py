"""What every study does with Ray Tune: hand out trials, and end in good order."""

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

#: How often a trial whose worker died, or that raised, is begun again.
_RETRIES = 1


class StudyInterruptedError(KeyboardInterrupt):
    """Ctrl-C or SIGTERM while a study ran; the message is its name."""


@dataclass(frozen=True)
class TuneRun:
    """Hands the trials of a study to Ray Tune.

    Attributes
    ----------
    name
        Of the study.
    actor, shared
        What works on the trials, and what all of them are given beside ``threads``.
    recorder
        Takes what they report.
    resources, slots
        What a trial gets, and how many run at a time.
    """

    name: str
    actor: type[Actor]
    shared: dict[str, Any]
    recorder: Callback
    resources: Resources
    slots: int

    def fit(self, space: dict[str, Any], **config: Any) -> None:
        """Run trials until the space or ``config`` (of ``tune.TuneConfig``) says enough."""
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
                    # A trial is minutes of work: one that is interrupted begins again.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=_RETRIES),
                    verbose=0,
                ),
            )
            tuner.fit()


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a study the way Ctrl-C does: runs are closed on the way out.

    To be entered after Ray has started: ``ray.init`` sets a handler of its own.
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
