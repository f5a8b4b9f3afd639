"""Trials that take too long: which workers are killed, and what becomes of their trials."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mmlab.errors import UserError
from mmlab.schedule import time_limit
from mmlab.schedule.time_limit import TimeLimit
from mmlab.spec.resources import Resources

pytestmark = pytest.mark.cluster


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Return the time in seconds, as a list of one."""
    seconds = [0.0]
    monkeypatch.setattr(time_limit.time, "monotonic", lambda: seconds[0])
    return seconds


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the workers that are killed."""
    names: list[str] = []
    monkeypatch.setattr(time_limit.ray, "kill", names.append)
    return names


def trial(name: str, config: dict[str, Any] | None = None) -> Any:
    state = SimpleNamespace(ray_actor=f"worker of {name}")
    return SimpleNamespace(trial_id=name, temporary_state=state, config=config or {"selector": "x"})


def test_a_worker_is_killed_once_its_trial_has_taken_too_long(
    now: list[float], killed: list[str]
) -> None:
    limit, slow, pair = TimeLimit(2), trial("slow"), trial("pair", {"group": {"trials": [1, 2]}})
    waiting = trial("waiting")
    waiting.temporary_state.ray_actor = None
    for seconds, expected in (
        (0, []),
        (119, []),
        (121, ["worker of slow"]),
        (239, ["worker of slow"]),
        # Two trials that are trained together have twice the time.
        (241, ["worker of slow", "worker of pair"]),
    ):
        now[0] = seconds
        limit.on_step_begin(1, [slow, pair, waiting])
        assert killed == expected
    assert limit.seconds(slow) == 121
    assert limit.reason(slow) == ""
    # It starts again on another worker, with all its time.
    slow.temporary_state.ray_actor = "second worker"
    for seconds in (300, 419, 421):
        assert len(killed) == 2
        now[0] = seconds
        limit.on_step_begin(1, [slow])
    assert killed[2:] == ["second worker"]
    assert limit.seconds(slow) == 121
    assert limit.reason(slow) == (
        "The trial took longer than --minutes-per-trial 2, in two attempts."
    )
    assert limit.reason(pair) == limit.reason(waiting) == ""


def test_without_a_limit_no_worker_is_killed(now: list[float], killed: list[str]) -> None:
    limit, slow = TimeLimit(None), trial("slow")
    for seconds in (0, 1e9):
        now[0] = seconds
        limit.on_step_begin(1, [slow])
    assert not killed


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none(minutes: float) -> None:
    with pytest.raises(UserError, match=r"--minutes-per-trial is .*, but must be positive\."):
        Resources(minutes_per_trial=minutes)
