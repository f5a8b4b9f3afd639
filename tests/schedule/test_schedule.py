"""Several trials of a comparison that an actor works on as one, and when a search stops them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from tiny import SMALL

from mmlab.comparison.result_table import make_row
from mmlab.comparison.tables import compare_methods, view_tables
from mmlab.datasets.cells import Cells
from mmlab.nn.training import TrainingDivergedError
from mmlab.schedule import Resources, comparison_actor, search_algorithm
from mmlab.schedule import comparison as comparison_module
from mmlab.schedule.comparison import run_comparison
from mmlab.schedule.comparison_actor import ComparisonActor
from mmlab.schedule.comparison_plan import PlannedTrial, group_trials, plan_trials, tabulate
from mmlab.schedule.progress import SearchProgress, TrialProgress
from mmlab.selectors import control_methods
from mmlab.spec.comparison import ComparisonSpec, MethodSpec
from mmlab.spec.search import SearchSpace
from mmlab.spec.trial import DataSpec
from mmlab.tracking import Outcome, TrackingStore
from mmlab.trial.result import TrialResult
from mmlab.trial.run import Trial, run_trial, run_trials

METHOD = {"selector": "markermap_supervised", "params": SMALL}


def comparison(**changes: Any) -> ComparisonSpec:
    content = {
        "data": {"name": "pbmc68k_reduced"},
        "n_markers": [6],
        "methods": ["random", METHOD],
        "replicates": 3,
    }
    return ComparisonSpec.model_validate(content | changes)


@pytest.fixture
def deep_part(tiny_cells: Cells) -> list[PlannedTrial]:
    spec = comparison(data=DataSpec(path="tiny.h5ad", label_key="cell_type"))
    return [trial for trial in plan_trials(spec, tiny_cells) if trial.method.params]


def started(cells: Cells, part: Sequence[PlannedTrial]) -> ComparisonActor:
    """An actor at work on a part of the grid, in this process."""
    trials = [trial.spec.model_dump(mode="json") for trial in part]
    worker = object.__new__(ComparisonActor)
    worker.setup({"part": {"trials": trials}}, cells=cells, threads=1)
    return worker


def steps(worker: ComparisonActor) -> Iterator[dict[str, Any]]:
    while True:
        report = worker.step()
        yield report
        if report["done"]:
            return


def without_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns=["seconds", "fit_seconds"])


def test_trials_of_an_actor_give_what_each_gives_alone(
    deep_part: list[PlannedTrial], tiny_cells: Cells
) -> None:
    reports = list(steps(started(tiny_cells, deep_part)))
    assert [[m["epoch"] for m in report["trials"]] for report in reports] == [
        [1] * 3,
        [2] * 3,
        [3] * 3,
        [3] * 3,
    ]
    assert [report["done"] for report in reports] == [False] * 3 + [True]
    members = reports[-1]["trials"]
    assert [m["digest"] for m in members] == [trial.digest for trial in deep_part]
    assert {m["outcome"] for m in members} == {"complete"}
    for member, trial in zip(members, deep_part, strict=True):
        found, alone = TrialResult.from_json(member["result"]), run_trial(trial.spec, tiny_cells)
        pd.testing.assert_frame_equal(
            without_seconds(found.replicates), without_seconds(alone.replicates)
        )
        # Biases before a batch normalisation are moved by rounding alone: the loss in evaluation
        # mode feels that, the hard panel's score does not.
        seen = ["epoch", "temperature", "train/loss", "validation/score"]
        pd.testing.assert_frame_equal(found.history[seen], alone.history[seen])


def test_one_that_diverges_does_not_take_the_others_with_it(
    deep_part: list[PlannedTrial], tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_diverges(trials: Sequence[Trial]) -> Iterator[Any]:
        for number, epochs in enumerate(run_trials(trials), start=1):
            if number == 2 and deep_part[1].digest in [trial.digest for trial in trials]:
                raise TrainingDivergedError("the loss is nan")
            yield epochs

    monkeypatch.setattr(comparison_actor, "run_trials", second_diverges)
    *_, last = steps(started(tiny_cells, deep_part))
    outcomes = [(member["outcome"], member["reason"]) for member in last["trials"]]
    assert outcomes == [("complete", ""), ("failed", "the loss is nan"), ("complete", "")]
    assert [bool(member["result"]) for member in last["trials"]] == [True, False, True]


def test_a_result_comes_back_from_text_to_the_last_bit(tiny_cells: Cells) -> None:
    method = MethodSpec.model_validate(METHOD)
    result = run_trial(comparison().trial(method, comparison().settings[0], 0), tiny_cells)
    again = TrialResult.from_json(result.to_json())
    assert again.spec == result.spec
    assert again.metrics == result.metrics
    for name in ("panel", "replicates", "history"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(result, name))
    assert again.to_json() == result.to_json()


@pytest.mark.parametrize(("gpus", "sizes"), [(0.0, [1] * 24), (0.25, [1] * 12 + [10, 2])])
def test_on_a_gpu_replicates_are_handed_out_together(
    tiny_cells: Cells, gpus: float, sizes: list[int]
) -> None:
    trials = plan_trials(comparison(replicates=12), tiny_cells)
    parts = group_trials(trials, Resources(gpus_per_trial=gpus))
    assert sorted(map(len, parts)) == sorted(sizes)
    assert sorted(t.digest for part in parts for t in part) == sorted(t.digest for t in trials)
    assert all(len({t.method.title for t in part}) == 1 for part in parts)
    firsts = [part[0].spec.first_replicate for part in parts]
    assert firsts == sorted(firsts)


def test_the_best_of_a_search_ran_to_its_end_and_never_gets_worse() -> None:
    told = StringIO()
    ends = [(Outcome.STOPPED, 0.9), (Outcome.COMPLETE, 0.7), (Outcome.COMPLETE, 0.8)]
    ends += [(Outcome.STOPPED, 0.95), (Outcome.COMPLETE, 0.6)]
    with SearchProgress(Console(file=told, width=200), "search", total=5) as progress:
        for number, (outcome, score) in enumerate(ends):
            key = str(number)
            progress.update(key, TrialProgress(key, "random", Outcome.RUNNING, 1, score, {}))
            progress.end(key, outcome)
    lines = told.getvalue().splitlines()[1:]
    assert [line.partition(", best ")[2][:6] for line in lines] == ["", "0.7000", *["0.8000"] * 3]


def test_all_genes_stand_beside_the_panels_of_every_size(tiny_cells: Cells) -> None:
    spec = comparison(n_markers=[5, 10], methods=["random", "all_genes"], replicates=2)
    trials = plan_trials(spec, tiny_cells)
    results = {trial.digest: run_trial(trial.spec, tiny_cells) for trial in trials}
    assert len(results) == 6
    rows = {
        digest: make_row(
            result.spec, digest, result.fingerprint, result.replicates.iloc[0].to_dict()
        )
        for digest, result in results.items()
    }
    tables = tabulate(spec, trials, rows, tiny_cells)
    shown = compare_methods(tables.replicates, tables.summary, set(control_methods()))
    for k in spec.n_markers:
        for _, _, lines in view_tables(shown, k, set(), str):
            assert {line[0] for line in lines} == {"random", "all_genes"}


def test_levels_that_a_method_does_not_see_are_handed_out_together(tiny_cells: Cells) -> None:
    spec = comparison(study="robustness", levels=[0, 0.5, 1], replicates=2)
    parts = group_trials(plan_trials(spec, tiny_cells), Resources())
    sizes = {part[0].method.title: len(part) for part in parts}
    assert sizes == {"random": 3, "markermap_supervised": 1}
    assert len(parts) == 2 + 6
    # On a GPU levels of noise are trained as one too.
    parts = group_trials(plan_trials(spec, tiny_cells), Resources(gpus_per_trial=1))
    assert {part[0].method.title: len(part) for part in parts} == {
        "random": 3,
        "markermap_supervised": 6,
    }


@pytest.mark.slow
@pytest.mark.cluster
def test_a_comparison_in_parts_is_the_same_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compared(name: str) -> tuple[pd.DataFrame, list[Any]]:
        store = TrackingStore(f"sqlite:///{tmp_path}/{name}.db")
        result = run_comparison(
            comparison(), store, Resources(max_concurrent=2), Console(quiet=True)
        )
        assert not result.failed
        runs = list(store.search("tags.`mmlab.kind` = 'trial'"))
        return result.replicates.set_index("digest").sort_index(), runs

    alone, _ = compared("alone")
    one_by_one = comparison_module.group_trials

    def in_pairs(missing: list[PlannedTrial], resources: Resources) -> list[list[PlannedTrial]]:
        flat = [trial for part in one_by_one(missing, resources) for trial in part]
        deep = [trial for trial in flat if trial.method.params]
        return [[t] for t in flat if not t.method.params] + [deep[:2], deep[2:]]

    monkeypatch.setattr(comparison_module, "group_trials", in_pairs)
    together, runs = compared("together")
    same = ["method", "replicate", "epochs", "params"]
    pd.testing.assert_frame_equal(together[same], alone[same])
    exact = together["method"] == "random"
    seconds = ["seconds", "fit_seconds"]
    pd.testing.assert_frame_equal(
        together[exact].drop(columns=seconds), alone[exact].drop(columns=seconds)
    )
    # In a pack a panel is the same up to rounding, which may change a gene of it.
    for pair in zip(together["panel"], alone["panel"], strict=True):
        assert len(set(pair[0]) & set(pair[1])) >= 4
    assert len(runs) == 6
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.parametrize("max_epochs", [1, 2, 3, 4, 10, 21, 60, 100])
@pytest.mark.parametrize(("first", "factor"), [(10, 2.0), (1, 3.0), (30, 2.5), (7, 1.5)])
def test_rungs_are_those_of_the_scheduler(max_epochs: int, first: int, factor: float) -> None:
    search = SearchSpace(
        selector="markermap_supervised",
        parameters={"beta": {"low": 0.8, "high": 0.9}},
        min_epochs_before_stop=first,
        reduction_factor=factor,
    )
    rungs = search.rungs(max_epochs)
    # Taken from there: Ray reads what mmlab.schedule sets when it is imported.
    ours = search_algorithm.ASHAScheduler(
        grace_period=rungs[0], max_t=max(max_epochs - 1, rungs[0]), reduction_factor=factor
    )
    assert rungs == [math.ceil(epoch) for epoch, _ in reversed(ours._brackets[0]._rungs)]
    assert all(epoch < max_epochs or max_epochs == 1 for epoch in rungs)


def test_rungs_are_filled_by_trials_that_ended_and_not_by_what_runs_again() -> None:
    """An interrupted trial that was ahead must not stop the others at a rung that it left."""
    outcomes = {"ended": Outcome.STOPPED, "interrupted": Outcome.INTERRUPTED}
    records: Any = [
        SimpleNamespace(run_id=name, outcome=outcome) for name, outcome in outcomes.items()
    ]
    histories = {"ended": [(10, 0.3)], "interrupted": [(10, 0.9), (20, 0.95)]}
    search = SearchSpace(
        selector="markermap_supervised", parameters={"beta": {"low": 0.8, "high": 0.9}}
    )
    study: Any = SimpleNamespace(
        spec=SimpleNamespace(search=search),
        score_history=lambda record, name: histories[record.run_id],
    )
    halving = search_algorithm.RecordedHalving(study, 60, records)
    recorded = {int(epoch): dict(known) for epoch, known in halving._brackets[0]._rungs}
    assert recorded == {10: {"ended": 0.3}, 20: {}, 40: {}}
