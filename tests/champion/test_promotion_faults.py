"""Promotions that are killed at any point end, with the same command, as undisturbed ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from promotions import (
    STUDY,
    Killed,
    champion_of,
    copy_store,
    end_state,
    killed_before_step,
    make_store,
    promote_search,
    register_rival,
)

from mmlab.tracking import StudyRun, TrackingStore, close_abandoned, find_promotions, open_study

NewStore = Callable[[str], TrackingStore]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a search, and a model of another method that is the champion."""
    folder = tmp_path_factory.mktemp("template")
    make_store(folder)
    register_rival(TrackingStore(f"sqlite:///{folder}/mlflow.db"))
    return folder


@pytest.fixture
def new_store(template: Path, tmp_path: Path) -> NewStore:
    return lambda name: copy_store(template, tmp_path / name)


def search_of(store: TrackingStore) -> StudyRun:
    return open_study(store, STUDY)


@pytest.mark.slow
def test_a_promotion_killed_before_any_step_is_resumed(new_store: NewStore) -> None:
    undisturbed = new_store("undisturbed")
    with killed_before_step(10_000) as steps:
        first_line = promote_search(undisturbed)
    assert first_line[0].startswith("New champion: ")
    expected = end_state(undisturbed)
    assert list(expected["files"]) == ["promoted", "promoted/tiny.yaml"]
    names = {"create_run", "compare", "create_model_version", "set_registered_model_alias"}
    assert names | {"delete_registered_model_alias", "replace", "set_terminated"} <= set(steps)
    for number in range(1, len(steps) + 1):
        store = new_store(str(number))
        with killed_before_step(number), pytest.raises(Killed):
            promote_search(store)
        assert promote_search(store) == first_line, steps[number - 1]
        assert end_state(store) == expected, steps[number - 1]


@pytest.mark.slow
def test_a_promotion_killed_by_the_system_is_resumed(new_store: NewStore) -> None:
    undisturbed, store = new_store("undisturbed"), new_store("killed")
    first_line = promote_search(undisturbed)
    # The champion is registered; its study file has only its temporary name.
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from promotions import TrackingStore, promote_search\n"
        "replace = Path.replace\n"
        "def kill(path, target):\n"
        "    if target.name == 'tiny.yaml': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return replace(path, target)\n"
        "Path.replace = kill\n"
        "promote_search(TrackingStore(sys.argv[1]))\n"
    )
    path = str(Path(__file__).parents[1] / "support")
    killed = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r})\n{code}", store.uri],
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL
    assert champion_of(store) == champion_of(undisturbed)
    (left,) = (store.folder / "promoted").iterdir()
    assert left.name.startswith(".tiny.yaml.")
    # Whatever runs on the store next closes the run of the promotion.
    close_abandoned(store)
    assert not list(store.search({}, status="RUNNING"))
    assert find_promotions(search_of(store)) == []
    assert promote_search(store) == first_line
    assert end_state(store) == end_state(undisturbed)


def test_the_comparisons_are_nested_in_the_promotion(new_store: NewStore) -> None:
    store = new_store("store")
    promote_search(store)
    (promotion,) = find_promotions(search_of(store))
    experiment = [search_of(store).experiment_id]

    def children(run_id: str) -> list[str]:
        parent = f"tags.`mlflow.parentRunId` = '{run_id}'"
        runs = store.client.search_runs(experiment, parent, order_by=["attributes.start_time"])
        return [str(run.info.run_name) for run in runs]

    assert children(promotion["run_id"]) == promotion["comparisons"]
    (name,) = {run for run in children(search_of(store).run_id) if run.startswith("promotion ")}
    assert name == store.client.get_run(promotion["run_id"]).info.run_name


def test_another_command_does_not_resume_a_promotion(new_store: NewStore) -> None:
    store = new_store("store")
    with killed_before_step(10_000) as steps:
        promote_search(new_store("undisturbed"))
    with killed_before_step(len(steps)), pytest.raises(Killed):
        promote_search(store)
    registered = champion_of(store)
    # With other replicates, the champion is that of the killed promotion.
    (headline,) = promote_search(store, replicates=3)
    assert headline.startswith("The search found nothing better than the champion ")
    (promotion,) = find_promotions(search_of(store))
    assert promotion["verdict"].startswith(headline)
    # The killed promotion is resumed later, too, because nobody else took the title.
    assert promote_search(store)[0].startswith("New champion: ")
    assert champion_of(store) == registered


def test_a_promotion_is_not_resumed_after_another_champion(new_store: NewStore) -> None:
    store = new_store("store")
    with killed_before_step(4), pytest.raises(Killed):
        promote_search(store)
    register_rival(store)
    rival = champion_of(store)
    assert rival == ("tiny.random.6", "2")
    promote_search(store)
    (promotion,) = find_promotions(search_of(store))
    tags = store.client.get_run(promotion["run_id"]).data.tags
    assert tags["mmlab.previous_champion"] == "/".join(rival)


def test_a_resumed_promotion_with_another_winner_leaves_one_version(new_store: NewStore) -> None:
    store = new_store("store")
    with killed_before_step(10_000) as steps:
        promote_search(new_store("undisturbed"))
    with killed_before_step(len(steps)), pytest.raises(Killed):
        promote_search(store)
    # Replicates that had failed give other accuracies: the default wins.
    (headline,) = promote_search(store, n_best=50)
    assert headline.startswith("The search found nothing better than the default ")
    (promotion,) = find_promotions(search_of(store))
    own = store.client.search_model_versions(f"run_id = '{promotion['run_id']}'")
    assert [(version.name, str(version.version)) for version in own] == [champion_of(store)]
    # Or the former champion stays.
    store = new_store("second")
    with killed_before_step(len(steps)), pytest.raises(Killed):
        promote_search(store)
    (headline,) = promote_search(store, n_best=20, n_default=20)
    assert "which stays champion" in headline
    assert champion_of(store) == ("tiny.random.6", "1")


def test_an_interrupted_promotion_is_killed_and_prints_again(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store("store")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mmlab.champion.promote.write_study", interrupt)
        promote_search(store)
    assert not list(store.search({}, status="RUNNING"))
    assert find_promotions(search_of(store)) == []
    assert promote_search(store)[0].startswith("New champion: ")
    assert len(find_promotions(search_of(store))) == 1
