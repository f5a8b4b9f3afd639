"""Names with quotes and other characters of the user, and studies whose record is damaged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.tracking import (
    MethodRun,
    StudyRun,
    TrackingStore,
    TrialRun,
    close_abandoned,
    create_study,
    find_finished_replicates,
    find_promotions,
    find_study,
    lock_study,
    open_study,
    reclaim_study,
)
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.outcome import Outcome
from mmlab.trial.run import run_trial

#: A part of the names of files, methods and studies that MLflow's filters cannot quote.
NAMES = ["it's", 'a "quoted" one', "[1]", "100 %", "a\\b", "' or ''='", 'it\'s "both"', "日本"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrackingStore:
    folder = tmp_path_factory.mktemp("stores")
    store = TrackingStore(f"sqlite:///{folder}/mlflow.db")
    store.initialise()
    return store


def comparison(label: str) -> ComparisonSpec:
    methods = [{"selector": "scanpy_t_test", "label": label}, "random"]
    data = DataSpec(name="pbmc68k_reduced")
    return ComparisonSpec(data=data, methods=methods, n_markers=[5], replicates=1)


def study_with_a_trial(
    store: TrackingStore, name: str, cells: Cells
) -> tuple[StudyRun[ComparisonSpec], str]:
    """Create a study with one finished trial of its first method; return both."""
    study = create_study(store, name, comparison(name), cells, {}, f"mmlab run {name}")
    method = MethodRun.open(study, study.spec.methods[0])
    requested = study.spec.trial(study.spec.methods[0], study.spec.settings[0], 0)
    spec: TrialSpec = resolve_spec(requested, cells)
    result = run_trial(spec, cells)
    parent = (study.name, method.run_id)
    run = TrialRun.create(store, study.experiment_id, result.spec, result.digest, cells, parent)
    run.add_result(result, at_ms=1)
    run.close(Outcome.COMPLETE)
    return study, result.digest


@pytest.mark.parametrize("name", NAMES)
def test_names_with_any_character_are_found_again(
    store: TrackingStore, name: str, tiny_cells: Cells
) -> None:
    cells = replace(tiny_cells, name=name)
    study, digest = study_with_a_trial(store, name, cells)
    method = study.spec.methods[0]
    assert MethodRun.open(study, method).run_id == MethodRun.open(study, method).run_id
    assert [trial.digest for trial in study.trials()] == [digest]
    found = dict(find_finished_replicates(store, study.experiment_id, {digest}))
    assert list(found) == [digest]
    assert find_promotions(study) == []
    with lock_study(store, name):
        assert open_study(store, name).run_id == study.run_id
    study.finish(complete=True)
    assert find_study(store, study.run_id) is not None
    assert list(store.search({"mmlab.study": name}, status="RUNNING")) == []


def test_a_damaged_record_blocks_no_other_study_and_its_own_only_until_it_is_rerun(
    store: TrackingStore, tiny_cells: Cells
) -> None:
    broken, digest = study_with_a_trial(store, "broken", tiny_cells)
    store.set_tags(broken.run_id, {"mmlab.spec": '{"study": "bench', "mmlab.pid": "1"})
    store.set_tags(broken.run_id, {"mmlab.process_start": "0"})
    healthy = create_study(store, "healthy", comparison("healthy"), tiny_cells, {}, "")

    close_abandoned(store)

    assert store.client.get_run(broken.run_id).info.status == "KILLED"
    assert open_study(store, "healthy").run_id == healthy.run_id
    assert list(dict(find_finished_replicates(store, healthy.experiment_id, {digest})))
    with pytest.raises(UserError, match=r"study broken: its specification in .* is damaged"):
        open_study(store, "broken")
    again = reclaim_study(store, "broken", broken.spec)
    assert again is not None
    assert again.run_id == broken.run_id
    assert open_study(store, "broken").spec == broken.spec


def test_a_damaged_trial_is_left_out_and_named(
    store: TrackingStore, tiny_cells: Cells, caplog: pytest.LogCaptureFixture
) -> None:
    study, _ = study_with_a_trial(store, "damaged trial", tiny_cells)
    (trial,) = study.trials()
    store.set_tags(trial.run_id, {"mmlab.spec": "{"})
    assert study.trials() == []
    assert trial.run_id in caplog.text


@pytest.mark.parametrize("name", ["..", "a/b", "x" * 300, "日" * 90])
def test_local_folder_of_a_study_is_one_folder(store: TrackingStore, name: str) -> None:
    with lock_study(store, name):
        assert store.study_folder(name).parent == store.state_folder
        assert (store.study_folder(name) / "owner").is_file()
