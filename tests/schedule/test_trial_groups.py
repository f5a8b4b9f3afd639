"""Groups of trials that an actor of a comparison runs together, and the planned trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from tiny import SMALL

from mmlab.comparison.result_table import make_row
from mmlab.comparison.tables import compare_methods, view_tables
from mmlab.datasets.cells import Cells
from mmlab.nn.training import TrainingDivergedError
from mmlab.schedule import actor as actor_module
from mmlab.schedule import running_comparison
from mmlab.schedule.actor import ComparisonActor
from mmlab.schedule.comparison import run_comparison
from mmlab.schedule.comparison_plan import PlannedTrial, plan_trials, tabulate
from mmlab.schedule.trial_groups import group_trials
from mmlab.selectors import control_methods
from mmlab.spec.comparison import ComparisonSpec, MethodSpec
from mmlab.spec.resources import Resources
from mmlab.spec.trial import DataSpec
from mmlab.tracking import TrackingStore
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
def markermap_group(tiny_cells: Cells) -> list[PlannedTrial]:
    spec = comparison(data=DataSpec(path="tiny.h5ad", label_key="cell_type"))
    return [trial for trial in plan_trials(spec, tiny_cells) if trial.method.params]


def start_actor(cells: Cells, group: Sequence[PlannedTrial]) -> ComparisonActor:
    """Start an actor on a group of trials, in this process."""
    trials = [trial.spec.model_dump(mode="json") for trial in group]
    actor = object.__new__(ComparisonActor)
    actor.setup({"group": {"trials": trials}}, cells=cells, threads=1)
    return actor


def steps(actor: ComparisonActor) -> Iterator[dict[str, Any]]:
    """Yield the reports of an actor until it is done."""
    while True:
        report = actor.step()
        yield report
        if report["done"]:
            return


def without_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns=["seconds", "fit_seconds"])


def test_trials_of_a_group_give_the_same_results_as_alone(
    markermap_group: list[PlannedTrial], tiny_cells: Cells
) -> None:
    reports = list(steps(start_actor(tiny_cells, markermap_group)))
    assert [[m["epoch"] for m in report["trials"]] for report in reports] == [
        [1] * 3,
        [2] * 3,
        [3] * 3,
        [3] * 3,
    ]
    assert [report["done"] for report in reports] == [False] * 3 + [True]
    members = reports[-1]["trials"]
    assert [m["digest"] for m in members] == [trial.digest for trial in markermap_group]
    assert {m["outcome"] for m in members} == {"complete"}
    for member, trial in zip(members, markermap_group, strict=True):
        grouped = TrialResult.from_json(member["result"])
        alone = run_trial(trial.spec, tiny_cells)
        pd.testing.assert_frame_equal(
            without_seconds(grouped.replicates), without_seconds(alone.replicates)
        )
        # The gradients of biases before a batch normalisation are pure rounding errors. They change
        # the validation loss, but not the score of the hard panel.
        exact = ["epoch", "temperature", "train/loss", "validation/score"]
        pd.testing.assert_frame_equal(grouped.history[exact], alone.history[exact])


def test_trial_that_diverges_does_not_fail_the_others_of_its_group(
    markermap_group: list[PlannedTrial], tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_diverges(trials: Sequence[Trial]) -> Iterator[Any]:
        for number, epochs in enumerate(run_trials(trials), start=1):
            if number == 2 and markermap_group[1].digest in [trial.digest for trial in trials]:
                raise TrainingDivergedError("the loss is nan")
            yield epochs

    monkeypatch.setattr(actor_module, "run_trials", second_diverges)
    *_, last = steps(start_actor(tiny_cells, markermap_group))
    outcomes = [(member["outcome"], member["reason"]) for member in last["trials"]]
    assert outcomes == [("complete", ""), ("failed", "the loss is nan"), ("complete", "")]
    assert [bool(member["result"]) for member in last["trials"]] == [True, False, True]


@pytest.mark.parametrize("error", [KeyError("panel"), OSError(28, "No space left on device")])
def test_errors_of_a_trial_are_reported_and_those_of_its_machine_are_raised(
    markermap_group: list[PlannedTrial],
    tiny_cells: Cells,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fail(trials: Sequence[Trial]) -> Iterator[Any]:
        yield from ()
        raise error

    monkeypatch.setattr(actor_module, "run_trials", fail)
    actor = start_actor(tiny_cells, markermap_group)
    if isinstance(error, OSError):
        with pytest.raises(OSError, match="No space left"):
            list(steps(actor))
        return
    *_, last = steps(actor)
    assert [member["outcome"] for member in last["trials"]] == ["failed"] * 3
    reasons = {member["reason"].splitlines()[-1] for member in last["trials"]}
    assert reasons == {"KeyError: 'panel'"}
    assert "line" in last["trials"][0]["reason"]


def test_result_is_bit_identical_after_a_json_round_trip(tiny_cells: Cells) -> None:
    method = MethodSpec.model_validate(METHOD)
    result = run_trial(comparison().trial(method, comparison().settings[0], 0), tiny_cells)
    again = TrialResult.from_json(result.to_json())
    assert again.spec == result.spec
    assert again.metrics == result.metrics
    for name in ("panel", "replicates", "history"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(result, name))
    assert again.to_json() == result.to_json()


@pytest.mark.parametrize(("gpus", "sizes"), [(0.0, [1] * 24), (0.25, [1] * 12 + [10, 2])])
def test_replicates_are_grouped_on_a_gpu(tiny_cells: Cells, gpus: float, sizes: list[int]) -> None:
    trials = plan_trials(comparison(replicates=12), tiny_cells)
    groups = group_trials(trials, Resources(gpus_per_trial=gpus))
    assert sorted(map(len, groups)) == sorted(sizes)
    assert sorted(t.digest for group in groups for t in group) == sorted(t.digest for t in trials)
    assert all(len({t.method.title for t in group}) == 1 for group in groups)
    firsts = [group[0].spec.first_replicate for group in groups]
    assert firsts == sorted(firsts)


def test_all_genes_control_is_listed_at_every_panel_size(tiny_cells: Cells) -> None:
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
    tables_shown = compare_methods(tables.replicates, tables.summary, set(control_methods()))
    for k in spec.n_markers:
        for _, _, lines, _ in view_tables(tables_shown, k, str):
            assert {line[0] for line in lines} == {"random", "all_genes"}


def test_noise_levels_that_a_method_ignores_are_grouped(tiny_cells: Cells) -> None:
    spec = comparison(study="robustness", levels=[0, 0.5, 1], replicates=2)
    groups = group_trials(plan_trials(spec, tiny_cells), Resources())
    sizes = {group[0].method.title: len(group) for group in groups}
    assert sizes == {"random": 3, "markermap_supervised": 1}
    assert len(groups) == 2 + 6
    # On a GPU, noise levels are trained as one batch, too.
    groups = group_trials(plan_trials(spec, tiny_cells), Resources(gpus_per_trial=1))
    assert {group[0].method.title: len(group) for group in groups} == {
        "random": 3,
        "markermap_supervised": 6,
    }


@pytest.mark.slow
@pytest.mark.cluster
def test_grouped_trials_give_the_same_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> tuple[pd.DataFrame, list[Any]]:
        store = TrackingStore(f"sqlite:///{tmp_path}/{name}.db")
        result = run_comparison(
            comparison(), store, Resources(max_concurrent=2), Console(quiet=True)
        )
        assert not result.failed
        runs = list(store.search({"mmlab.kind": "trial"}))
        return result.replicates.set_index("digest").sort_index(), runs

    alone, _ = run("alone")
    group_singly = running_comparison.group_trials

    def in_pairs(missing: list[PlannedTrial], resources: Resources) -> list[list[PlannedTrial]]:
        flat = [trial for group in group_singly(missing, resources) for trial in group]
        markermap = [trial for trial in flat if trial.method.params]
        return [[t] for t in flat if not t.method.params] + [markermap[:2], markermap[2:]]

    monkeypatch.setattr(running_comparison, "group_trials", in_pairs)
    together, runs = run("together")
    same = ["method", "replicate", "epochs", "params"]
    pd.testing.assert_frame_equal(together[same], alone[same])
    exact = together["method"] == "random"
    seconds = ["seconds", "fit_seconds"]
    pd.testing.assert_frame_equal(
        together[exact].drop(columns=seconds), alone[exact].drop(columns=seconds)
    )
    # In a batch, results are equal up to rounding, which may change a gene of a panel.
    for pair in zip(together["panel"], alone["panel"], strict=True):
        assert len(set(pair[0]) & set(pair[1])) >= 4
    assert len(runs) == 6
    assert {run.info.status for run in runs} == {"FINISHED"}
