"""A small robustness study, and what must hold of its results after any accident."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from processes import run_mmlab

from mmlab.tracking import TrackingStore
from mmlab.trial.outcome import Outcome

STUDY: dict[str, Any] = {
    "study": "robustness",
    "data": {"name": "pbmc68k_reduced"},
    "levels": [0, 0.5, 1],
    "n_markers": [10],
    "replicates": 2,
    "methods": [
        "random",
        "scanpy_t_test",
        {
            "selector": "markermap_supervised",
            "params": {"max_epochs": 3, "min_epochs": 3, "hidden_size": 32},
        },
    ],
}
N_TRIALS = 3 * 3 * 2


def write_study(folder: Path) -> None:
    """Write the study file ``study.yaml``."""
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))


def run_study(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the study in a folder to its end, and return its JSON document."""
    done = run_mmlab(folder, "run", "study.yaml", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def result_rows(content: dict[str, Any]) -> pd.DataFrame:
    """Return the finished replicates without run times, which differ from run to run."""
    rows = pd.DataFrame(content["trials"]).drop(columns=["seconds", "fit_seconds"])
    assert rows["digest"].is_unique or set(rows["method"]) != {"random"}
    return rows


def assert_complete(uri: str, reference: dict[str, Any], content: dict[str, Any]) -> None:
    """Assert that the results are those of the reference and each trial has one finished run."""
    pd.testing.assert_frame_equal(result_rows(content), result_rows(reference))
    store = TrackingStore(uri)
    trials = list(store.search({"mmlab.kind": "trial"}))
    digests = [run.data.tags["mmlab.digest"] for run in trials]
    assert sorted(digests) == sorted(row["digest"] for row in reference["trials"])
    assert {run.data.tags["mmlab.outcome"] for run in trials} == {Outcome.COMPLETE}
    everything = list(store.search({}))
    assert {run.info.status for run in everything} == {"FINISHED"}
    for run in trials:
        points = store.client.get_metric_history(run.info.run_id, "knn/accuracy")
        assert len(points) == 1
