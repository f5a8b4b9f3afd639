"""Results of a comparison as read from the tracking store."""

from __future__ import annotations

from pathlib import Path

from mmlab.datasets.cells import Cells
from mmlab.schedule.comparison_plan import plan_trials, read_comparison
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import DataSpec
from mmlab.tracking import MethodRun, TrackingStore, TrialRun, create_study
from mmlab.trial.outcome import Outcome
from mmlab.trial.run import run_trial

SPEC = ComparisonSpec(
    study="robustness",
    data=DataSpec(name="tiny"),
    methods=["scanpy_t_test"],
    n_markers=[5],
    replicates=1,
    levels=[0.0, 0.5],
)


def test_results_of_an_interrupted_study_are_complete_rows(
    tmp_path: Path, tiny_cells: Cells
) -> None:
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    store.initialise()
    study = create_study(store, "noise", SPEC, tiny_cells, {}, "")
    method = MethodRun.open(study, SPEC.methods[0])
    trials = plan_trials(SPEC, tiny_cells)
    for trial in trials:
        parent = (study.name, method.run_id)
        run = TrialRun.create(
            store, study.experiment_id, trial.spec, trial.digest, tiny_cells, parent
        )
        run.add_result(run_trial(trial.spec, tiny_cells), at_ms=1)
        run.close(Outcome.COMPLETE)
    result = read_comparison(study, tiny_cells)
    rows = result.replicates.set_index("digest")
    assert rows["noise_level"].to_dict() == {t.digest: t.spec.noise.level for t in trials}
    assert set(rows["fingerprint"]) == {tiny_cells.fingerprint}
    assert set(rows["seed"]) == {SPEC.seed}
    assert set(result.robustness["n"]) == {1}
