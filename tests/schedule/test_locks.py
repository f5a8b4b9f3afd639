"""A study that another process runs is refused before anything is read or started."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmlab.champion.promote import promote
from mmlab.datasets import load_cells
from mmlab.errors import UserError
from mmlab.schedule.comparison import run_comparison
from mmlab.schedule.search import resume_search, run_search
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.resources import Resources
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import DataSpec
from mmlab.tracking import StudyRun, TrackingStore, create_study, lock_results_file, lock_study

DATA = DataSpec(name="pbmc68k_reduced")
SEARCH = SearchSpec(
    data=DATA,
    search={"selector": "markermap_supervised", "parameters": {"hidden_size": {"choices": [16]}}},
    trials=2,
)
COMPARISON = ComparisonSpec(data=DATA, methods=["random"], n_markers=[5], replicates=1)


@pytest.fixture
def study(tmp_path: Path) -> StudyRun:
    """A search, of which a dead process left the run open."""
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    study = create_study(store, "same", SEARCH, load_cells(DATA), {}, "")
    store.set_tags(study.run_id, {"mmlab.process_start": "0"})
    return study


@pytest.mark.parametrize("kind", ["new", "resumed", "comparison", "promoted"])
def test_a_locked_study_is_refused(
    kind: str, study: StudyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmlab.schedule.search.cluster", None)
    monkeypatch.setattr("mmlab.schedule.running_comparison.cluster", None)
    # A damaged file would be noticed if it was read before the lock is taken.
    (tmp_path / "rows.parquet").write_text("damaged")
    comparison = f"benchmark-pbmc68k_reduced-{COMPARISON.digest(study.fingerprint())[:8]}"
    store, common = study.store, (study.store, Resources(), Console(file=io.StringIO()))
    act: dict[str, Callable[[], Any]] = {
        "new": lambda: run_search(SEARCH, *common, name="another"),
        "resumed": lambda: resume_search("same", *common),
        "comparison": lambda: run_comparison(
            COMPARISON, *common, results_file=tmp_path / "rows.parquet"
        ),
        "promoted": lambda: promote("same", *common, folder=tmp_path),
    }
    locked = {"new": "another", "comparison": comparison}.get(kind, "same")
    with (
        lock_study(store, locked),
        pytest.raises(UserError, match=f"study {locked} is already running in process"),
    ):
        act[kind]()


def test_a_results_file_that_another_comparison_uses_is_refused(
    study: StudyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each comparison replaces the whole file; the second would lose the rows of the first."""
    monkeypatch.setattr("mmlab.schedule.running_comparison.cluster", None)
    common = (study.store, Resources(), Console(file=io.StringIO()))
    (tmp_path / "link").symlink_to(tmp_path)
    rows, same = tmp_path / "rows.parquet", tmp_path / "link" / "rows.parquet"
    # A damaged file would be noticed if it was read before the lock is taken.
    rows.write_text("damaged")
    sentence = f"--rows {same} is used by process {os.getpid()} on {socket.gethostname()}. Wait"
    with lock_results_file(rows), pytest.raises(UserError) as error:
        run_comparison(COMPARISON, *common, results_file=same)
    assert str(error.value).startswith(sentence)
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        run_comparison(COMPARISON, *common, results_file=same)


def test_the_name_of_a_study_is_taken_only_once(study: StudyRun) -> None:
    common = (study.store, Resources(), Console(file=io.StringIO()))
    with pytest.raises(UserError, match="study same already exists"):
        run_search(SEARCH, *common, name="same")
    for name in ("", "a/b", "..", "-x", "a\x1b[31m", "x" * 101, "a b"):
        with pytest.raises(UserError, match="is not a valid name of a study: use at most 100"):
            run_search(SEARCH, *common, name=name)
    many = SEARCH.model_copy(update={"trials": 10**9})
    with pytest.raises(UserError, match="the study has 1000000000 trials"):
        run_search(many, *common)
    with pytest.raises(UserError, match="the study has 1000000000 trials"):
        resume_search("same", *common, trials=10**9)
    with pytest.raises(UserError, match="--trials may only be raised"):
        resume_search("same", *common, trials=1)
