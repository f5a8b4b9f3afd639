"""The script that evaluates the panels of finished replicates again."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from mmlab.comparison.result_table import make_row, row_from_parquet
from mmlab.datasets import load_cells
from mmlab.spec import trial as trial_spec
from mmlab.spec.trial import DataSpec, LabelNoise, TrialSpec
from mmlab.trial.evaluate import CLASSIFIERS
from mmlab.trial.run import run_trial

SCRIPT = Path(__file__).parents[2] / "experiments" / "evaluate_again.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("evaluate_again", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("selector", ["smash", "shuffled_labels"])
def test_evaluation_of_a_panel_gives_the_metrics_and_the_digest_of_its_trial(
    script: Any, selector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = load_cells(DataSpec(name="pbmc68k_reduced"))
    spec = TrialSpec(
        data=DataSpec(name="pbmc68k_reduced"),
        selector=selector,
        n_markers=5,
        noise=LabelNoise(level=0.2),
        first_replicate=2,
        seed=3,
    )
    result = run_trial(spec, cells)
    (replicate,) = result.replicates.to_dict(orient="records")
    row = make_row(result.spec, result.digest, result.fingerprint, row_from_parquet(replicate))
    with monkeypatch.context() as earlier:
        earlier.setattr(trial_spec, "PROTOCOL_NUMBER", 1)
        digest = result.spec.digest(result.fingerprint)
    assert digest != row["digest"]
    stale = row | {"linear/l2": 1e13, "knn/accuracy": 0.0, "digest": digest}
    assert script.evaluate_again(stale, cells) == row
    without_seed = {name: value for name, value in stale.items() if name != "seed"}
    assert script.evaluate_again(without_seed, cells) == row


def test_classifiers_can_be_kept(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = load_cells(DataSpec(name="pbmc68k_reduced"))
    data = DataSpec(name="pbmc68k_reduced")
    result = run_trial(TrialSpec(data=data, selector="random", n_markers=5), cells)
    (replicate,) = result.replicates.to_dict(orient="records")
    row = make_row(result.spec, result.digest, result.fingerprint, row_from_parquet(replicate))
    for name in list(CLASSIFIERS):
        monkeypatch.delitem(CLASSIFIERS, name)
    again = script.evaluate_again(row | {"linear/l2": 1e13}, cells)
    # As text, because NaN differs from itself: types with a single test cell have no variance.
    assert repr(again) == repr(row)


def test_digest_without_a_specification_is_refused(script: Any) -> None:
    row = {
        "digest": "0" * 64,
        "dataset": "pbmc68k_reduced",
        "selector": "random",
        "params": "{}",
        "n_markers": 5,
        "noise_level": 0.0,
        "replicate": 0,
    }
    with pytest.raises(ValueError, match="no specification gives the digest 0000"):
        script.find_spec(row, "f" * 64)
