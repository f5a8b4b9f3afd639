"""Several trials of a comparison that an actor works on as one, and when a search stops them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from tiny import SMALL

from mmlab.config import BenchmarkSpec, DataSpec, SearchSpec
from mmlab.datasets.base import Cells
from mmlab.nn.training import TrainingDivergedError
from mmlab.pipeline import Trial, run_trials
from mmlab.schedule import Resources, actor, benchmark
from mmlab.schedule import search as search_module
from mmlab.schedule.actor import TrialActor
from mmlab.schedule.benchmark import GridTrial, plan, run_benchmark
from mmlab.tracking import Outcome, Store, StudyRun, create_study

METHOD = {"selector": "markermap_supervised", "params": SMALL}


def comparison(**changes: Any) -> BenchmarkSpec:
    content = {
        "data": {"name": "pbmc68k_reduced"},
        "n_markers": [6],
        "methods": ["random", METHOD],
        "replicates": 3,
    }
    return BenchmarkSpec.model_validate(content | changes)


@pytest.fixture
def study(tmp_path: Path, tiny_cells: Cells) -> StudyRun[BenchmarkSpec]:
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    spec = comparison(data=DataSpec(path="tiny.h5ad", label_key="cell_type"))
    return create_study(store, "together", spec, tiny_cells, {}, "")


def started(study: StudyRun[BenchmarkSpec], cells: Cells, part: Sequence[GridTrial]) -> TrialActor:
    """An actor at work on a part of the grid, in this process."""
    trials = [trial.spec.model_dump(mode="json") for trial in part]
    worker = object.__new__(TrialActor)
    worker.setup({"part": {"trials": trials}}, cells=cells, study=study, threads=1)
    return worker


def steps(worker: TrialActor) -> Iterator[dict[str, Any]]:
    while True:
        report = worker.step()
        yield report
        if report["done"]:
            return


def deep_part(study: StudyRun[BenchmarkSpec], cells: Cells) -> list[GridTrial]:
    return [trial for trial in plan(study.spec, cells) if trial.method.params]


def without_seconds(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).drop(columns=["seconds", "fit_seconds"])


def test_trials_of_an_actor_have_a_run_each_and_give_what_each_gives_alone(
    study: StudyRun[BenchmarkSpec], tiny_cells: Cells
) -> None:
    part = deep_part(study, tiny_cells)
    reports = list(steps(started(study, tiny_cells, part)))
    assert [report["epoch"] for report in reports] == [1, 2, 3, 3]
    members = reports[-1]["trials"]
    assert [m["digest"] for m in members] == [trial.digest for trial in part]
    assert {m["outcome"] for m in members} == {"complete"}
    assert len({m["run_id"] for m in members}) == 3
    for member, trial in zip(members, part, strict=True):
        alone = Trial(trial.spec, tiny_cells)
        history = list(alone.epochs())
        expected = alone.result().replicates.to_dict(orient="records")
        pd.testing.assert_frame_equal(without_seconds(member["rows"]), without_seconds(expected))
        stored = study.store.client.get_metric_history(member["run_id"], "validation/score")
        assert [p.value for p in stored] == [epoch["validation/score"] for epoch in history]


def test_one_that_diverges_does_not_take_the_others_with_it(
    study: StudyRun[BenchmarkSpec], tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = deep_part(study, tiny_cells)

    def second_diverges(trials: Sequence[Trial]) -> Iterator[Any]:
        for number, epochs in enumerate(run_trials(trials), start=1):
            if number == 2 and part[1].digest in [trial.digest for trial in trials]:
                raise TrainingDivergedError("the loss is nan")
            yield epochs

    monkeypatch.setattr(actor, "run_trials", second_diverges)
    *_, last = steps(started(study, tiny_cells, part))
    outcomes = [(member["outcome"], member["reason"]) for member in last["trials"]]
    assert outcomes == [("complete", ""), ("failed", "the loss is nan"), ("complete", "")]
    for member in last["trials"]:
        stored = study.store.client.get_metric_history(member["run_id"], "validation/score")
        epochs = [point.step for point in stored]
        assert epochs == ([1] if member["outcome"] == "failed" else [1, 2, 3])


def test_trials_that_had_ended_are_left_out(
    study: StudyRun[BenchmarkSpec], tiny_cells: Cells
) -> None:
    part = deep_part(study, tiny_cells)
    for asked, expected in [(part[:2], part[:2]), (part, part[2:])]:
        *_, last = steps(started(study, tiny_cells, asked))
        assert [m["digest"] for m in last["trials"]] == [trial.digest for trial in expected]
        for member in last["trials"]:
            study.store.close(member["run_id"], "FINISHED", {"mmlab.outcome": Outcome.COMPLETE})
    (nothing,) = steps(started(study, tiny_cells, part))
    assert (nothing["trials"], nothing["done"]) == ([], True)


@pytest.mark.parametrize(("gpus", "sizes"), [(0.0, [1] * 24), (0.25, [1] * 12 + [10, 2])])
def test_on_a_gpu_replicates_are_handed_out_together(
    tiny_cells: Cells, gpus: float, sizes: list[int]
) -> None:
    grid = plan(comparison(replicates=12), tiny_cells)
    parts = benchmark._parts(grid, Resources(gpus_per_trial=gpus))
    assert sorted(map(len, parts)) == sorted(sizes)
    assert sorted(t.digest for part in parts for t in part) == sorted(t.digest for t in grid)
    assert all(len({t.method.title for t in part}) == 1 for part in parts)
    firsts = [part[0].spec.first_replicate for part in parts]
    assert firsts == sorted(firsts)


@pytest.mark.slow
@pytest.mark.cluster
def test_a_comparison_in_parts_is_the_same_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compared(name: str) -> tuple[pd.DataFrame, list[Any]]:
        store = Store(f"sqlite:///{tmp_path}/{name}.db")
        result = run_benchmark(
            comparison(), store, Resources(max_concurrent=2), Console(quiet=True)
        )
        assert not result.failed
        runs = list(store.search("tags.`mmlab.kind` = 'trial'"))
        return result.rows.set_index("digest").sort_index(), runs

    alone, _ = compared("alone")
    one_by_one = benchmark._parts

    def in_pairs(missing: list[GridTrial], resources: Resources) -> list[list[GridTrial]]:
        flat = [trial for part in one_by_one(missing, resources) for trial in part]
        deep = [trial for trial in flat if trial.method.params]
        return [[t] for t in flat if not t.method.params] + [deep[:2], deep[2:]]

    monkeypatch.setattr(benchmark, "_parts", in_pairs)
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
    search = SearchSpec(
        selector="markermap_supervised",
        parameters={"beta": {"low": 0.8, "high": 0.9}},
        min_epochs_before_stop=first,
        reduction_factor=factor,
    )
    rungs = search.rungs(max_epochs)
    # Taken from there: Ray reads what mmlab.schedule sets when it is imported.
    ours = search_module.ASHAScheduler(
        grace_period=rungs[0], max_t=max(max_epochs - 1, rungs[0]), reduction_factor=factor
    )
    assert rungs == [math.ceil(epoch) for epoch, _ in reversed(ours._brackets[0]._rungs)]
    assert all(epoch < max_epochs or max_epochs == 1 for epoch in rungs)
