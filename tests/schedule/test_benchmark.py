"""End-to-end tests of `mmlab benchmark` and `mmlab run`, with real processes, Ray and MLflow."""

from __future__ import annotations

import json
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from processes import run_mmlab, running_mmlab

from mmlab.tracking import TrackingStore
from mmlab.trial.outcome import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

STUDY: dict[str, Any] = {
    "study": "benchmark",
    "data": {"name": "pbmc68k_reduced"},
    "n_markers": [10],
    "replicates": 3,
    "methods": [
        "random",
        "scanpy_t_test",
        {
            "selector": "markermap_supervised",
            "label": "short MarkerMap",
            "params": {"max_epochs": 3, "min_epochs": 3, "hidden_size": 32},
            "replicates": 2,
        },
    ],
}


def write_study(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes))
    return path


def compare(folder: Path, *arguments: str) -> dict[str, Any]:
    done = run_mmlab(folder, "run", "study.yaml", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def runs_of(folder: Path, kind: str) -> list[Any]:
    return list(TrackingStore(f"sqlite:///{folder}/mlflow.db").search({"mmlab.kind": kind}))


def metric_means(content: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Return all means except those of run times, which differ between equal trials."""
    return {
        (row["method"], row["metric"]): row["mean"]
        for row in content["table"]
        if row["metric"] != "fit_seconds"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("benchmark")
    write_study(folder)
    return folder, compare(folder, "--rows", "rows.parquet", "-o", "tables")


def test_comparison_has_one_row_per_replicate_and_metric(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    _, content = finished
    replicates = [(row["method"], row["replicate"]) for row in content["trials"]]
    assert sorted(replicates) == sorted(
        [("random", r) for r in range(3)]
        + [("scanpy_t_test", r) for r in range(3)]
        + [("short MarkerMap", r) for r in range(2)]
    )
    table = pd.DataFrame(content["table"])
    accuracy = table[table["metric"] == "knn/accuracy"].set_index("method")
    assert accuracy["n"].to_dict() == {"random": 3, "scanpy_t_test": 3, "short MarkerMap": 2}
    rows = pd.DataFrame(content["trials"])
    random_accuracy = rows.loc[rows["method"] == "random", "knn/accuracy"]
    assert accuracy.loc["random", "mean"] == pytest.approx(random_accuracy.mean())
    assert accuracy.loc["random", "std"] == pytest.approx(statistics.stdev(random_accuracy))
    assert {"stability/nogueira", "panel/mean_redundancy", "leiden/nmi"} <= set(table["metric"])
    tests = pd.DataFrame(content["tests"])
    assert "random" not in set(tests["method"]) | set(tests["reference"])
    assert set(tests["n"]) == {2}


def test_mlflow_runs_of_trials_are_nested_in_methods_and_these_in_the_study(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, content = finished
    (study,) = runs_of(folder, "study")
    methods = {run.info.run_id: run for run in runs_of(folder, "method")}
    trials = runs_of(folder, "trial")
    assert study.info.run_id == content["run_id"]
    assert len(methods) == 3
    assert len(trials) == 8
    assert {run.info.status for run in [study, *methods.values(), *trials]} == {"FINISHED"}
    assert {m.data.tags["mlflow.parentRunId"] for m in methods.values()} == {study.info.run_id}
    for trial in trials:
        parent = methods[trial.data.tags["mlflow.parentRunId"]]
        assert parent.data.tags["mmlab.selector"] == trial.data.tags["mmlab.selector"]
        assert trial.data.metrics["score"] == trial.data.metrics["knn/accuracy"]
    leader = next(m for m in methods.values() if m.info.run_name == "scanpy_t_test").data.metrics
    assert {name: study.data.metrics.get(name, 0.0) for name in leader} == leader | {
        "replicates": 0.0
    }
    assert leader["score"] == leader["knn/accuracy"]
    assert "**scanpy\\_t\\_test**" in study.data.tags["mlflow.note.content"]
    assert content["run_id"] in content["page"]
    means = {m.data.tags["mmlab.method"]: m.data.metrics["knn/accuracy"] for m in methods.values()}
    table = metric_means(content)
    assert means == {name: pytest.approx(table[name, "knn/accuracy"]) for name in means}
    client = TrackingStore(f"sqlite:///{folder}/mlflow.db").client
    files = {file.path for file in client.list_artifacts(study.info.run_id)}
    assert {"comparison.parquet", "benchmark.md", "paired_tests.parquet"} <= files
    files = {file.path for file in client.list_artifacts(next(iter(methods)))}
    assert {"markers.parquet", "replicates.parquet", "figures"} <= files


def test_tables_are_written_to_the_requested_paths(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = finished
    assert len(pd.read_parquet(folder / "rows.parquet")) == 8
    assert len(pd.read_parquet(folder / "tables" / "replicates.parquet")) == 8
    text = (folder / "tables" / "benchmark.md").read_text()
    assert "short MarkerMap" in text
    assert "**" in text


def test_rerun_of_a_finished_study_computes_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, content = finished
    before = {run.info.run_id for run in runs_of(folder, "trial")}
    again = compare(folder)
    assert {run.info.run_id for run in runs_of(folder, "trial")} == before
    assert again["study"] == content["study"]
    assert metric_means(again) == metric_means(content)


def test_tune_cannot_resume_a_comparison(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, content = finished
    done = run_mmlab(folder, "tune", "--resume", content["study"])
    assert done.returncode == 2
    assert "is a comparison, not a search. To resume it, run its own command again" in done.stderr


def test_another_study_reuses_the_finished_replicates(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, content = finished
    before = {run.info.run_id for run in runs_of(folder, "trial")}
    write_study(folder, replicates=2)
    try:
        smaller = compare(folder)
    finally:
        write_study(folder)
    assert smaller["study"] != content["study"]
    assert {run.info.run_id for run in runs_of(folder, "trial")} == before
    assert len(smaller["trials"]) == 6


def test_finished_replicates_of_a_results_file_are_not_computed_again(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, content = finished
    write_study(tmp_path)
    reused = compare(tmp_path, "--rows", str(folder / "rows.parquet"))
    assert runs_of(tmp_path, "trial") == []
    assert metric_means(reused) == metric_means(content)


@pytest.mark.long
def test_killed_comparison_resumes_and_gives_the_same_table(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    _, content = finished
    write_study(tmp_path)
    with running_mmlab(tmp_path, "run", "study.yaml", "--rows", "rows.parquet") as driver:
        deadline = time.monotonic() + 120
        while not (tmp_path / "rows.parquet").exists():
            assert time.monotonic() < deadline, (tmp_path / "stderr").read_text()
            assert driver.poll() is None, (tmp_path / "stderr").read_text()
            time.sleep(0.05)
        # A stopped process is alive but cannot finish before the second driver starts.
        driver.send_signal(signal.SIGSTOP)
        refused = run_mmlab(tmp_path, "run", "study.yaml")
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert refused.returncode == 2
    assert "is already running in process" in refused.stderr
    first = len(pd.read_parquet(tmp_path / "rows.parquet"))
    assert 1 <= first < 8
    resumed = compare(tmp_path, "--rows", "rows.parquet")
    assert metric_means(resumed) == metric_means(content)
    digests = pd.read_parquet(tmp_path / "rows.parquet")["digest"]
    assert digests.nunique() == len(digests) == 8
    outcomes = [run.data.tags["mmlab.outcome"] for run in runs_of(tmp_path, "trial")]
    assert outcomes == [Outcome.COMPLETE] * 8
    everything = [run for kind in ("study", "method", "trial") for run in runs_of(tmp_path, kind)]
    assert {run.info.status for run in everything} == {"FINISHED"}


def test_failed_method_is_reported_and_does_not_stop_the_others(tmp_path: Path) -> None:
    diverging = {"selector": "markermap_supervised", "params": {"learning_rate": 1e30}}
    write_study(tmp_path, methods=["random", diverging], replicates=1)
    done = run_mmlab(tmp_path, "run", "study.yaml", "--json")
    assert done.returncode == 1
    assert "1 of 2 trials failed" in done.stderr
    assert "(markermap_supervised 0 of 1)" in done.stderr
    content = json.loads(done.stdout)
    assert [row["method"] for row in content["trials"]] == ["random"]
    assert list(content["failed"]) == ["markermap_supervised, replicate 0"]
    assert "diverged" in content["failed"]["markermap_supervised, replicate 0"]
    statuses = {
        run.data.tags["mmlab.method"]: run.info.status for run in runs_of(tmp_path, "method")
    }
    assert statuses == {"random": "FINISHED", "markermap_supervised": "KILLED"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "zeisel", "--methods", "randon"], "Did you mean 'random'?"),
        (["--dataset", "zeisel", "--methods", "oracle"], "those of zeisel are not known"),
        (["--dataset", "zeisel", "--methods", "random,random"], "duplicate methods: random"),
        (["--dataset", "zeisel", "--n-markers", "10,x"], "'10,x': give whole numbers"),
        (["--dataset", "zeisel", "--n-markers", "5000"], "give a number from 1 to 4000"),
        (["--dataset", "zeisel", "--rows", "no/rows.parquet"], "the folder no does not exist"),
    ],
)
def test_invalid_arguments_write_nothing(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run_mmlab(tmp_path, "benchmark", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
