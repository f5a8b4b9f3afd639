"""Addresses of pages of the MLflow UI."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from mmlab.tracking import (
    TrackingStore,
    latest_study_page,
    page_address,
    run_page,
    study_page,
)
from mmlab.tracking.study_page import log_view


@pytest.fixture
def store(tmp_path: Path) -> TrackingStore:
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    return store


def query(page: str) -> dict[str, list[str]]:
    """Return the query in the fragment of a page."""
    return parse_qs(urlsplit(urlsplit(page).fragment).query)


def test_the_view_of_a_study_finds_its_runs_in_the_order_of_their_scores(
    store: TrackingStore,
) -> None:
    experiment = store.experiment("tiny")
    study = store.create_run(experiment, "study", {"mmlab.kind": "study"})
    runs = {}
    for name, score, parent in (("a", 0.5, study), ("b", 0.9, study), ("c", 0.7, "other")):
        runs[name] = store.create_run(experiment, name, {"mlflow.parentRunId": parent})
        store.log_metrics(runs[name], {"score": score}, 0)
    old = query(str(latest_study_page(store)))
    log_view(store, experiment, study, ["beta"])
    page = study_page(experiment, study)
    assert latest_study_page(store) == page
    assert page.startswith(f"#/experiments/{experiment}/runs?")
    assert query(page)["viewStateShareKey"] == [study]
    assert query(page)["workflowType"] == old["workflowType"] == ["machine_learning"]
    tags = store.client.get_experiment(experiment).tags
    view = json.loads(tags[f"mlflow.sharedViewState.{study}"])
    assert view["selectedColumns"] == ["metrics.`score`", "metrics.`fit_seconds`", "params.`beta`"]
    assert view["orderByAsc"] is False
    for facets in (view, {name: values[0] for name, values in old.items()}):
        found = store.client.search_runs(
            [experiment], facets["searchFilter"], order_by=[f"{facets['orderByKey']} DESC"]
        )
        assert [run.info.run_name for run in found] == ["b", "a"]


def test_the_latest_study_is_the_one_that_runs_or_ended_last(store: TrackingStore) -> None:
    assert latest_study_page(store) is None
    ids = {}
    for name in ("first", "second"):
        experiment = store.experiment(name)
        ids[name] = store.create_run(experiment, name, {"mmlab.kind": "study"})
    store.client.set_terminated(ids["first"], "FINISHED", end_time=2_000_000_000_000)
    store.client.set_terminated(ids["second"], "FINISHED", end_time=1_900_000_000_000)
    assert ids["first"] in str(latest_study_page(store))
    store.reopen(ids["second"])
    assert ids["second"] in str(latest_study_page(store))


def test_after_a_promotion_the_latest_page_has_its_verdict(store: TrackingStore) -> None:
    experiment = store.experiment("tiny")
    search = store.create_run(experiment, "search", {"mmlab.kind": "study"})
    store.close(search, "FINISHED")
    tags = {"mmlab.kind": "promotion", "mlflow.parentRunId": search}
    promotion = store.create_run(experiment, "promotion", tags)
    tags = {"mmlab.kind": "study", "mlflow.parentRunId": promotion}
    store.close(store.create_run(experiment, "benchmark", tags), "FINISHED")
    assert latest_study_page(store) == run_page(experiment, promotion)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("http://lab.example.org:5000", "http://lab.example.org:5000/#/x"),
        ("https://lab.example.org/mlflow/", "https://lab.example.org/mlflow/#/x"),
        ("https://anna:secret@lab.example.org", "https://lab.example.org/#/x"),
    ],
)
def test_an_address_has_no_password(server: str, expected: str) -> None:
    assert page_address(server, "#/x") == expected
