"""Rounds of Ray Tune: how many configurations each has, and what is run again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mmlab.schedule.ray_tune_run import Recorder, TuneRun

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(("slots", "sizes"), [(1, [1000, 1000, 601]), (30, [1500, 1101])])
def test_rounds_are_limited_and_what_is_lost_is_run_again(
    slots: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, rounds = Recorder(), []

    def fit(run: TuneRun, space: dict[str, Any]) -> None:
        values = space["number"]["grid_search"]
        assert space["fixed"] == 1
        rounds.append(values)
        recorder.start_round(None)
        lost = values[0] if len(rounds) == 1 else None
        recorder.ended += [{"fixed": 1, "number": value} for value in values if value != lost]

    monkeypatch.setattr(TuneRun, "fit", fit)
    cluster: Any = SimpleNamespace(max_slots=slots)
    actor: Any = None
    TuneRun("study", actor, {}, recorder, cluster).run_each("number", range(2600), fixed=1)
    assert [len(values) for values in rounds] == sizes
    assert rounds[1][0] == 0
    assert {value for values in rounds for value in values} == set(range(2600))
