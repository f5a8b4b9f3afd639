"""The metrics file of a running study, and the dashboard that shows it."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from commands import mistake
from rich.console import Console

from mmlab.schedule import metrics_file
from mmlab.schedule.metrics_file import METRICS
from mmlab.schedule.progress import SearchProgress, TrialProgress
from mmlab.trial.outcome import Outcome

ROOT = Path(__file__).parents[2]


def read(path: Path) -> dict[str, float]:
    """Return the values of a file of one study, by name."""
    line = re.compile(r'(\w+)\{study="(.*)"\} (\S+)')
    found = [match for text in path.read_text().splitlines() if (match := line.fullmatch(text))]
    assert {match[2] for match in found} == {'a \\"b\\"'}
    return {match[1]: float(match[3]) for match in found}


def test_the_file_follows_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.prom"
    monkeypatch.setenv("MMLAB_METRICS", str(path))
    monkeypatch.setattr(metrics_file, "_INTERVAL", 0.0)
    console, unsent = Console(file=StringIO()), [0]
    ends = {"1": (Outcome.COMPLETE, 30.0), "2": (Outcome.FAILED, 4.5)}
    with SearchProgress(console, 'a "b"', 5, ended=1, unsent=unsent.__len__) as progress:
        assert read(path)["mmlab_trials_planned"] == 5
        for key in ("1", "2", "3"):
            seconds = ends.get(key, (None, 9.0))[1]
            state = TrialProgress(key, "random", Outcome.RUNNING, 0, 0.5, {}, seconds)
            progress.update(key, state)
        for key, (outcome, _) in ends.items():
            progress.end(key, outcome)
        assert read(path) == {
            "mmlab_trials_planned": 5,
            "mmlab_trials_running": 1,
            "mmlab_trials_finished_total": 2,
            "mmlab_trials_failed_total": 1,
            "mmlab_trial_seconds_total": 34.5,
            "mmlab_unsent_trials": 1,
        }
    assert read(path)["mmlab_trials_running"] == 0
    text = path.read_text()
    for name, (kind, _) in METRICS.items():
        assert f"# TYPE {name} {kind}\n" in text
        assert (kind == "counter") == name.endswith("_total")


def test_a_full_disk_costs_the_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MMLAB_METRICS", str(tmp_path / "missing" / "study.prom"))
    with SearchProgress(Console(file=StringIO()), "study", 1) as progress:
        progress.update("1", TrialProgress("1", "random", Outcome.RUNNING, 0, 0.5, {}))
        progress.end("1", Outcome.COMPLETE)
    assert [record.message for record in caplog.records] == [
        f"metrics cannot be written to {tmp_path}/missing/study.prom: No such file or directory"
    ]


def test_the_dashboard_shows_these_metrics() -> None:
    dashboard = json.loads((ROOT / "tracking" / "grafana_dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = set(re.findall(r"\bmmlab_\w+", " ".join(queries)))
    assert shown == set(METRICS)


def test_other_names_are_refused(tmp_path: Path) -> None:
    command = ("benchmark", "--dataset", "citeseq", "--metrics")
    assert "must end with .prom" in mistake(*command, str(tmp_path / "study.txt"))
    assert "--metrics" in mistake(*command, str(tmp_path / "missing" / "study.prom"))
