"""Progress lines of a study, its time left, and the baselines that are ahead of its best trial."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mmlab.cli.search_output import print_result
from mmlab.datasets.cells import Cells
from mmlab.schedule.progress import ComparisonProgress, SearchProgress, TrialProgress
from mmlab.schedule.running_search import SearchResult
from mmlab.schedule.study_size import describe_size
from mmlab.spec.search import SearchSpace, SearchSpec
from mmlab.spec.trial import DataSpec
from mmlab.tracking import TrackingStore, TrialRecord, create_study, log_search_summary
from mmlab.trial.outcome import Outcome


def search_lines(ends: list[tuple[str, Outcome, float]], best: float | None = None) -> list[str]:
    """Return the progress lines of trials that end as given: method, outcome, score."""
    output = StringIO()
    console = Console(file=output, width=200)
    with SearchProgress(console, "search", len(ends), method="tuned", best=best) as progress:
        for number, (method, outcome, score) in enumerate(ends):
            key = str(number)
            epoch = number if method == "tuned" else 0
            progress.update(key, TrialProgress(key, method, Outcome.RUNNING, epoch, score, {}))
            progress.end(key, outcome)
    return output.getvalue().splitlines()[1:]


def test_best_score_of_a_search_counts_complete_searched_trials_only() -> None:
    """A resumed search starts from the best score so far; baselines never count."""
    ends = [("random", Outcome.COMPLETE, 0.99), ("tuned", Outcome.STOPPED, 0.9)]
    ends += [("tuned", Outcome.COMPLETE, 0.7), ("tuned", Outcome.COMPLETE, 0.8)]
    ends += [("tuned", Outcome.STOPPED, 0.95), ("tuned", Outcome.COMPLETE, 0.6)]

    def bests(lines: list[str]) -> list[str]:
        return [line.partition(", best ")[2][:6] for line in lines]

    assert bests(search_lines(ends)) == ["", "", "0.7000", *["0.8000"] * 3]
    assert bests(search_lines(ends, best=0.75)) == [*["0.7500"] * 3, *["0.8000"] * 3]


def test_epochs_are_counted_where_there_are_epochs() -> None:
    ends = [("random", Outcome.COMPLETE, 0.5), *[("tuned", Outcome.STOPPED, 0.5)] * 2]
    lines = search_lines(ends)
    assert [line.split(" ", 3)[3].split(":")[0] for line in lines] == [
        "complete",
        "stopped after 1 epoch",
        "stopped after 2 epochs",
    ]


def test_time_left_of_a_comparison_is_unknown_until_every_method_has_its_own_pace() -> None:
    """Four trials of 2 s and two of 60 s, two at a time."""
    progress = ComparisonProgress(
        Console(file=StringIO()), "study", 6, n_missing={"fast": 4, "slow": 2}, slots=2
    )

    def end(key: str, method: str, outcome: Outcome, seconds: float) -> str:
        trial = TrialProgress(key, method, outcome, 0, 0.9, {}, seconds)
        progress.update(key, trial)
        progress.end(key, outcome)
        return progress.time_left()

    assert end("a", "fast", Outcome.COMPLETE, 2) == "time left unknown"
    assert end("b", "fast", Outcome.FAILED, 0) == "time left unknown"
    # Two fast trials and one slow trial are missing.
    assert end("c", "slow", Outcome.COMPLETE, 60) == "about 32 s left"
    assert end("d", "slow", Outcome.FAILED, 0) == "about 2 s left"


def test_time_of_a_comparison_is_estimated_for_each_method_and_not_for_its_selector() -> None:
    """A quick training says nothing of the default training of the same selector."""
    row = {"selector": "markermap_supervised", "fit_seconds": 1.0, "seconds": 2.0}
    groups: Any = [
        [SimpleNamespace(method=SimpleNamespace(title=title), spec=spec)]
        for title, spec in [
            (title, SimpleNamespace(selector="markermap_supervised", constraints=()))
            for title in ("quick", "default")
        ]
    ]
    text = describe_size(groups, [("quick", row)], 1)
    assert text.endswith("; estimated time about 2 s, not counting default.")
    assert text.startswith("2 trials to compute")
    assert describe_size(groups[:1], [], 1).startswith("1 trial to compute")


AHEAD = "Baseline scanpy_t_test has 0.9378: better than the best trial."


@pytest.mark.parametrize(("score", "ahead"), [(0.8, AHEAD), (0.9378, "")])
def test_a_baseline_that_is_ahead_is_named(
    score: float,
    ahead: str,
    tmp_path: Path,
    tiny_cells: Cells,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the output of the command and on the page of the study; a tie is not ahead."""
    search = SearchSpace(selector="markermap_supervised", parameters={"beta": {"choices": [0.5]}})
    spec = SearchSpec(data=DataSpec(name="zeisel"), search=search, trials=1)
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    study = create_study(store, "search", spec, tiny_cells, {}, "")

    def record(selector: str, score: float | None, outcome: Outcome) -> TrialRecord:
        metrics = {} if score is None else {"validation/score": score}
        trial = spec.trial(selector, {"beta": 0.5})
        return TrialRecord("", selector, selector, outcome, trial, metrics, "")

    best = record("markermap_supervised", score, Outcome.COMPLETE)
    records = [
        best,
        record("random", 0.5, Outcome.COMPLETE),
        record("scanpy_t_test", 0.9378, Outcome.COMPLETE),
        record("cosg", None, Outcome.FAILED),
    ]
    log_search_summary(study, records, best)
    note = store.client.get_run(study.run_id).data.tags["mlflow.note.content"]
    assert f"**Baselines:** scanpy_t_test 0.9378, random 0.5000. {ahead}".rstrip() in note
    print_result(SearchResult(study, records, best, ["a", "b"]))
    shown = capsys.readouterr().out
    assert "\nEvaluate it on the held-out test set with: " in shown
    assert " promote search\n" in shown
    rows = [line.split() for line in shown.splitlines() if "baseline " in line]
    assert rows == [["baseline", "scanpy_t_test", "0.9378"], ["baseline", "random", "0.5000"]]
    for text in (note, shown):
        assert (AHEAD in text) == bool(ahead)
