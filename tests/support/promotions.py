"""Promotions of a small search with invented accuracies: no trial is computed, Ray is not used."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from rich.console import Console
from tiny import as_cells, simulate_cells

from mmlab.champion import plan, promote
from mmlab.champion.promote import Promotion
from mmlab.datasets.cells import Cells
from mmlab.model import fit_model
from mmlab.preprocessing.splits import replicate_split
from mmlab.schedule.comparison_plan import ComparisonResult, comparison_name, plan_trials
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.resources import Resources
from mmlab.spec.search import Choices, SearchSpace, SearchSpec
from mmlab.spec.trial import DataSpec
from mmlab.tracking import (
    TrackingStore,
    TrialRun,
    create_study,
    find_champion,
    open_study,
    reclaim_study,
    register_model,
    set_champion,
)
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.outcome import Outcome

SELECTOR = "markermap_supervised"
SEARCH = SearchSpec(
    data=DataSpec(name="tiny"),
    search=SearchSpace(selector=SELECTOR, parameters={"beta": Choices(choices=[0.5, 0.9])}),
    trials=2,
    n_markers=6,
)
#: Name of the search.
STUDY = "search"
#: Cells of a held-out test set of 100 cells that a method gets right.
N_RIGHT = {"best": 90, "champion": 60, "default": 70, "random": 40}
#: Tags whose values name the process or the time.
_VOLATILE = {"mmlab.pid", "mmlab.process_start", "mmlab.alive_at", "mmlab.attempt"}
#: Starts of the names of the files of a store.
_STORE = ("mlflow.db", "mlartifacts")
#: Starts of the names of the methods that change a store.
_WRITES = ("create_", "delete_", "log_", "rename_", "set_", "update_")


def make_store(folder: Path) -> None:
    """Create a store with a search that has one complete trial."""
    cells, store = as_cells(simulate_cells()), TrackingStore(f"sqlite:///{folder}/mlflow.db")
    store.initialise()
    study = create_study(store, STUDY, SEARCH, cells, {}, "mmlab tune")
    spec = resolve_spec(SEARCH.trial(SELECTOR, {"beta": 0.5}), cells)
    digest, parent = spec.digest(cells.fingerprint), (study.name, study.run_id)
    run = TrialRun.create(store, study.experiment_id, spec, digest, cells, parent)
    store.log_metrics(run.run_id, {"validation/knn/accuracy": 0.9}, 0)
    run.close(Outcome.COMPLETE)
    study.finish(True)


def copy_store(template: Path, folder: Path) -> TrackingStore:
    """Copy a store with its artifacts."""
    shutil.copytree(template, folder)
    store = TrackingStore(f"sqlite:///{folder}/mlflow.db")
    store.require_reachable()
    return store


def register_rival(store: TrackingStore) -> None:
    """Make a model of another method the champion."""
    cells = as_cells(simulate_cells())
    study = open_study(store, STUDY)
    spec = resolve_spec(SEARCH.trial("random", {}), cells)
    spec = spec.model_copy(update={"protocol": "locked"})
    about = {"dataset": cells.name, "fingerprint": cells.fingerprint}
    model = fit_model(np.arange(6) + 30, cells, replicate_split(spec, cells, 0), about)
    run_id = store.create_run(study.experiment_id, "rival", {})
    digest = spec.digest(cells.fingerprint)
    champion = register_model(store, run_id, model, spec, digest, "earlier search")
    set_champion(store, cells.name, champion)
    store.close(run_id, "FINISHED")


def promote_search(
    store: TrackingStore, *, replicates: int = 2, n_best: int = 90, n_default: int = 70
) -> list[str]:
    """Promote the search and return the first line that is printed.

    ``n_best`` and ``n_default`` replace the values of :data:`N_RIGHT`.
    """
    n_right = N_RIGHT | {"best": n_best, "default": n_default}
    cells, printed = as_cells(simulate_cells()), list[str]()

    def run_comparison(spec: ComparisonSpec, *_: Any, **options: Any) -> ComparisonResult:
        return compare(spec, store, cells, n_right, options["parent_run_id"])

    def show(result: Promotion) -> None:
        for comparison in (result.locked, result.paper):
            store.set_tags(comparison.study.run_id, {"mlflow.note.content": "tables"})
        printed.append(result.decision.headline)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promote, "run_comparison", run_comparison)
        patch.setattr(plan, "load_cells", lambda _: cells)
        promote.promote(
            STUDY,
            store,
            Resources(),
            Console(quiet=True),
            baselines=["random"],
            replicates=replicates,
            folder=store.folder / "promoted",
            command="mmlab promote search",
            show=show,
        )
    return printed


def compare(
    spec: ComparisonSpec, store: TrackingStore, cells: Cells, n_right: dict[str, int], parent: str
) -> ComparisonResult:
    """Return a comparison of which only the study is in the store."""
    name, rows = comparison_name(spec, cells), []
    study = reclaim_study(store, name, spec)
    study = study or create_study(store, name, spec, cells, {}, "mmlab promote search", parent)
    planned = plan_trials(spec, cells)
    for trial in planned:
        title = trial.method.title
        role = next((role for role in ("champion", "default", "random") if role in title), "best")
        right = (np.arange(100) < n_right[role]).astype(int)
        row = {"method": title, "replicate": trial.spec.first_replicate, "digest": trial.digest}
        row |= {"panel": list(range(6)), "knn/accuracy": right.mean()}
        rows.append(row | {"per_cell/knn/accuracy": right.tolist()})
    study.finish(True)
    empty = pd.DataFrame()
    return ComparisonResult(study, planned, pd.DataFrame(rows), empty, empty, {}, 0)


def end_state(store: TrackingStore) -> dict[str, Any]:
    """Return all that a promotion leaves, without ids, times and processes."""
    runs = list(store.search({}))
    names = {run.info.run_id: run.info.run_name for run in runs}
    own = [path for path in store.folder.iterdir() if not path.name.startswith(_STORE)]
    files = [path for folder in own for path in (folder, *folder.rglob("*"))]
    return {
        "runs": sorted((_run_state(store, run, names) for run in runs), key=repr),
        "models": [
            (model.name, model.description, model.tags, model.aliases)
            for model in store.client.search_registered_models()
        ],
        "versions": sorted(
            (version.name, version.version, repr(sorted(version.tags.items())), names[run_id])
            for version in store.client.search_model_versions()
            if (run_id := str(version.run_id))
        ),
        "files": {
            str(path.relative_to(store.folder)): path.read_text() if path.is_file() else ""
            for path in files
        },
    }


def _run_state(store: TrackingStore, run: Run, names: dict[str, str]) -> dict[str, Any]:
    tags = {key: value for key, value in run.data.tags.items() if key not in _VOLATILE}
    if parent := tags.get("mlflow.parentRunId"):
        tags["mlflow.parentRunId"] = names[parent]
    history = {
        key: [point.value for point in store.client.get_metric_history(run.info.run_id, key)]
        for key in run.data.metrics
        if not key.startswith("trials/")  # counted again whenever a study is resumed
    }
    kind = tags.get("mmlab.kind")
    files = store.client.list_artifacts(run.info.run_id) if kind == "promotion" else []
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "tags": tags,
        "metrics": history,
        "files": sorted(file.path for file in files),
    }


def champion_of(store: TrackingStore) -> tuple[str, str]:
    """Return name and version of the champion."""
    champion = find_champion(store, "tiny", 6)
    assert champion is not None
    return champion.model_name, champion.version


class Killed(BaseException):
    """The process is dead: it writes nothing any more."""


@contextmanager
def killed_before_step(number: int) -> Iterator[list[str]]:
    """Die before the n-th step of a promotion; yield the names of the steps so far.

    A step is a comparison or anything else that writes to the store or makes a file appear: any
    call of a method of MLflow's client that changes a store is one. All later steps fail, too: a
    dead process cleans nothing up.
    """
    steps, depth = list[str](), 0

    def guard(owner: object, name: str) -> None:
        function = getattr(owner, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            if depth == 0:
                steps.append(name)
            if len(steps) >= number:
                raise Killed
            depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                depth -= 1

        patch.setattr(owner, name, step)

    with pytest.MonkeyPatch.context() as patch:
        guard(sys.modules[__name__], "compare")
        guard(Path, "replace")
        for name in dir(MlflowClient):
            if name.startswith(_WRITES):
                guard(MlflowClient, name)
        yield steps
