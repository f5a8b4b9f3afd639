"""Trials: results, pairing of methods, label noise, held-out cells, epochs, errors."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsClassifier
from tiny import SMALL, SMALL_OF_ALL, as_cells, simulate_cells

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.preprocessing.label_noise import draw_label_noise
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.recipes import prepare_layers
from mmlab.preprocessing.splits import Split, paper_split, search_split
from mmlab.selectors import SELECTORS, default_params
from mmlab.spec.trial import DataSpec, LabelNoise, TrialSpec
from mmlab.system.threads import limit_threads
from mmlab.trial import run as trial_run
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.evaluate import CLASSIFIERS, evaluate_panel
from mmlab.trial.fit_inputs import make_selector
from mmlab.trial.result import TrialResult
from mmlab.trial.run import OBJECTIVE, Trial, final_objective, run_trial, run_trials

DEEP = "markermap_joint"

#: Columns of a replicate that differ between identical runs.
SECONDS = ["seconds", "fit_seconds"]

every_selector = pytest.mark.parametrize("name", sorted(SELECTORS))
every_epochless_selector = pytest.mark.parametrize(
    "name", sorted(name for name, kind in SELECTORS.items() if not kind.trains_in_epochs)
)


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use 8 trees: growing the paper's 100 would take most of the time of these tests."""
    monkeypatch.setitem(
        CLASSIFIERS, "random_forest", lambda seed: RandomForestClassifier(8, random_state=seed)
    )


def trial_spec(selector: str = "scanpy_t_test", **changes: Any) -> TrialSpec:
    known = default_params(selector)
    settings: dict[str, Any] = {
        "data": DataSpec(path="tiny.h5ad", label_key="cell_type"),
        "selector": selector,
        "params": {key: value for key, value in SMALL_OF_ALL.items() if key in known},
        "n_markers": 6,
    }
    return TrialSpec(**(settings | changes))


def split_of(spec: TrialSpec, cells: Cells, replicate: int) -> Split:
    """Return the split of a replicate, computed with the public functions only."""
    rng = random_stream(spec.seed, replicate, Stream.SPLIT)
    if spec.protocol != "paper":
        return search_split(cells.y, cells.fingerprint, rng)
    return paper_split(cells.y, rng)


def assert_same_outcome(one: TrialResult, other: TrialResult) -> None:
    """Assert that everything except wall times is bitwise equal."""
    assert (one.spec, one.digest, one.fingerprint) == (other.spec, other.digest, other.fingerprint)
    assert one.metrics == other.metrics
    pd.testing.assert_frame_equal(one.panel, other.panel, check_exact=True)
    pd.testing.assert_frame_equal(one.history, other.history, check_exact=True)
    pd.testing.assert_frame_equal(
        one.replicates.drop(columns=SECONDS),
        other.replicates.drop(columns=SECONDS),
        check_exact=True,
    )
    for name, matrix in one.confusion.items():
        np.testing.assert_array_equal(matrix, other.confusion[name])


# --- results


@every_selector
@pytest.mark.parametrize("protocol", ["paper", "search"])
def test_the_same_specification_gives_the_same_result(
    name: str, protocol: Any, tiny_cells: Cells
) -> None:
    spec = trial_spec(name, protocol=protocol, replicates=2, noise=LabelNoise(level=0.2), seed=3)
    assert_same_outcome(run_trial(spec, tiny_cells), run_trial(spec, tiny_cells))


def test_another_seed_gives_other_splits_and_panels(tiny_cells: Cells) -> None:
    one, other = (run_trial(trial_spec("random", seed=seed), tiny_cells) for seed in (0, 1))
    assert one.digest != other.digest
    assert one.panel["gene"].tolist() != other.panel["gene"].tolist()


def test_a_result_has_all_fields(tiny_cells: Cells) -> None:
    spec = trial_spec(DEEP, replicates=2)
    result = run_trial(spec, tiny_cells)
    assert result.spec.params == default_params(DEEP) | SMALL
    assert result.digest == result.spec.digest(tiny_cells.fingerprint)
    assert result.fingerprint == tiny_cells.fingerprint
    assert result.classes == tiny_cells.classes
    assert result.panel["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert result.panel["gene"].tolist() == [f"Gene{i}" for i in result.panel["gene_index"]]
    assert result.replicates["replicate"].tolist() == [0, 1]
    assert result.replicates["epochs"].tolist() == [3, 3]
    for panel in result.replicates["panel"]:
        assert len(set(panel)) == 6
    assert result.seconds > 0


def test_explicit_defaults_do_not_change_the_digest(
    tiny_cells: Cells,
) -> None:
    short = trial_spec(DEEP)
    long = trial_spec(DEEP, params=default_params(DEEP) | SMALL)
    written_as_integer = trial_spec(DEEP, params=SMALL | {"initial_temperature": 3})
    digests = {Trial(spec, tiny_cells).digest for spec in (short, long, written_as_integer)}
    assert len(digests) == 1


@pytest.mark.parametrize("protocol", ["paper", "search"])
@pytest.mark.parametrize("replicates", [1, 2])
def test_metric_names_depend_on_protocol_and_number_of_replicates(
    protocol: Any, replicates: int, tiny_cells: Cells
) -> None:
    result = run_trial(trial_spec(DEEP, protocol=protocol, replicates=replicates), tiny_cells)
    names = set(result.metrics)
    plain = {name.removeprefix("validation/").removesuffix("_std") for name in names}
    assert {"knn/accuracy", "random_forest/weighted_f1", "linear/l2", "decoder/l1"} <= plain
    in_search = {name.startswith("validation/") for name in names}
    assert in_search == {protocol == "search"}
    means = {name for name in names if not name.endswith("_std")}
    deviations = {f"{name}_std" for name in means} if replicates > 1 else set()
    assert names == means | deviations
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_metrics_are_means_over_replicates(tiny_cells: Cells) -> None:
    result = run_trial(trial_spec("random", replicates=3), tiny_cells)
    column = result.replicates["knn/accuracy"]
    assert column.nunique() > 1
    assert result.metrics["knn/accuracy"] == pytest.approx(column.mean())
    assert result.metrics["knn/accuracy_std"] == pytest.approx(statistics.stdev(column))


def test_confusion_matrices_count_every_evaluated_cell(tiny_cells: Cells) -> None:
    paper, search = (
        run_trial(trial_spec("random", protocol=protocol, replicates=3), tiny_cells)
        for protocol in ("paper", "search")
    )
    assert {int(matrix.sum()) for matrix in paper.confusion.values()} == {3 * 24}
    assert {int(matrix.sum()) for matrix in search.confusion.values()} == {3 * 12}


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_held_out_test_set_gives_one_value_per_cell_whose_mean_is_the_metric(
    noise: float, tiny_cells: Cells
) -> None:
    spec = trial_spec(protocol="locked", replicates=3, noise=LabelNoise(level=noise))
    result = TrialResult.from_json(run_trial(spec, tiny_cells).to_json())
    names = {"knn/accuracy", "random_forest/accuracy", "linear/l2"}
    columns = {name for name in map(str, result.replicates) if name.startswith("per_cell/")}
    assert columns == {f"per_cell/{name}" for name in names}
    for row in result.replicates.to_dict(orient="records"):
        for name in names:
            values = row[f"per_cell/{name}"]
            assert len(values) == 24
            assert np.mean(values) == pytest.approx(row[name], rel=1e-6)
        assert set(row["per_cell/knn/accuracy"]) <= {0, 1}
    assert not any(name.startswith("per_cell/") for name in result.metrics)


def test_the_values_per_cell_are_in_the_order_of_the_test_cells(tiny_cells: Cells) -> None:
    spec = trial_spec("random", protocol="locked", replicates=2)
    rows = run_trial(spec, tiny_cells).replicates.to_dict(orient="records")
    for replicate, row in enumerate(rows):
        split = split_of(spec, tiny_cells, replicate)
        assert split.test.tolist() == split_of(spec, tiny_cells, 0).test.tolist()
        fit, panel = split.train_validation, row["panel"]
        z = prepare_layers(tiny_cells.adata, "total", "train_only", split.train)["zscore"]
        classifier = KNeighborsClassifier().fit(z[fit][:, panel], tiny_cells.y[fit])
        correct = classifier.predict(z[split.test][:, panel]) == tiny_cells.y[split.test]
        assert row["per_cell/knn/accuracy"] == correct.astype(int).tolist()
        regression = LinearRegression().fit(z[fit][:, panel], z[fit])
        errors = (regression.predict(z[split.test][:, panel]) - z[split.test]) ** 2
        np.testing.assert_allclose(row["per_cell/linear/l2"], errors.mean(axis=1), rtol=1e-3)


@pytest.mark.parametrize("protocol", ["paper", "search"])
def test_other_protocols_have_no_values_per_cell(protocol: Any, tiny_cells: Cells) -> None:
    replicates = run_trial(trial_spec("random", protocol=protocol), tiny_cells).replicates
    assert not any(str(name).startswith("per_cell/") for name in replicates)


def test_a_trial_equals_its_steps_run_by_hand(tiny_cells: Cells) -> None:
    """Split, label noise, layers, selector and evaluation, called one after the other."""
    spec = trial_spec("scanpy_t_test", noise=LabelNoise(level=0.3), replicates=2, seed=5)
    result = run_trial(spec, tiny_cells)
    for replicate in range(2):
        split = split_of(spec, tiny_cells, replicate)
        rng = random_stream(5, replicate, Stream.NOISE)
        fit = np.concatenate([split.train, split.validation])
        noisy = draw_label_noise(tiny_cells.y, fit, 0.3, np.full((3, 3), 1 / 3), rng)
        z = prepare_layers(tiny_cells.adata, "total", "train_only", split.train)["zscore"]
        panel = SELECTORS["scanpy_t_test"](6).fit(z[fit], noisy[fit]).panel_
        seed = int(random_stream(5, replicate, Stream.EVALUATION).integers(2**31))
        expected = evaluate_panel(
            panel,
            z[fit],
            noisy[fit],
            z[split.test],
            tiny_cells.y[split.test],
            3,
            seed,
            clean_labels=tiny_cells.y[fit],
        )
        row = result.replicates.iloc[replicate]
        assert row["panel"] == panel.tolist()
        for name, value in expected.metrics.items():
            assert row[name] == value, name


def test_a_trial_does_not_change_its_cells(tiny_cells: Cells) -> None:
    before = as_cells(simulate_cells())
    for name in SELECTORS:
        run_trial(trial_spec(name, noise=LabelNoise(level=0.5)), tiny_cells)
    assert as_cells(tiny_cells.adata).fingerprint == before.fingerprint
    assert list(tiny_cells.adata.layers) == []


def test_true_markers_are_found_and_score_well(tiny_cells: Cells, true_markers: set[int]) -> None:
    markers = run_trial(trial_spec("scanpy_t_test", n_markers=9, replicates=3), tiny_cells)
    chance = run_trial(trial_spec("random", n_markers=9, replicates=3), tiny_cells)
    assert set(markers.panel["gene_index"]) == true_markers
    assert markers.metrics["knn/accuracy"] > chance.metrics["knn/accuracy"] + 0.1


# --- pairing


def test_replicates_of_all_methods_share_splits_and_noisy_labels(tiny_cells: Cells) -> None:
    """If the panel is all genes, metrics depend only on the split and on the label noise."""
    n_genes = len(tiny_cells.genes)
    results = {
        name: run_trial(
            trial_spec(name, n_markers=n_genes, replicates=2, noise=LabelNoise(level=0.4)),
            tiny_cells,
        )
        for name in SELECTORS
        if name != "shuffled_labels"  # the only control that is fitted on other labels
    }
    columns = ["knn/accuracy", "knn/weighted_f1", "linear/l2"]
    tables = [result.replicates[columns].to_numpy() for result in results.values()]
    # Rounding of sums over genes depends on the order of the panel.
    for table in tables[1:]:
        np.testing.assert_allclose(table, tables[0], atol=1e-5)
    assert (tables[0][0] != tables[0][1]).any()


def test_more_replicates_keep_the_first_ones(tiny_cells: Cells) -> None:
    two, three = (
        run_trial(trial_spec(DEEP, replicates=n), tiny_cells).replicates.drop(
            columns=["seconds", "fit_seconds"]
        )
        for n in (2, 3)
    )
    # A replicate trained in a larger model batch differs only by rounding.
    pd.testing.assert_frame_equal(three.iloc[:2], two, rtol=1e-5)


# --- label noise


def test_label_noise_affects_the_classifiers_but_not_the_clean_ones(tiny_cells: Cells) -> None:
    spec = trial_spec("scanpy_t_test", n_markers=20, noise=LabelNoise(level=1.0), replicates=3)
    metrics = run_trial(spec, tiny_cells).metrics
    for name in ("knn/accuracy", "random_forest/accuracy", "knn/mean_f1"):
        assert metrics[f"clean_{name}"] > metrics[name] + 0.2


def test_without_noise_there_are_no_clean_classifiers_and_one_digest(tiny_cells: Cells) -> None:
    specs = [
        trial_spec("scanpy_t_test", noise=LabelNoise.model_validate({"kind": kind}))
        for kind in ("uniform", "pairwise")
    ]
    trials = [Trial(spec, tiny_cells) for spec in specs]
    assert trials[0].digest == trials[1].digest
    assert not any(name.startswith("clean_") for name in run_trial(specs[1], tiny_cells).metrics)


@pytest.mark.parametrize("kind", ["uniform_other", "pairwise", "class_dependent"])
def test_every_kind_of_noise_lowers_the_accuracy(
    kind: str, tiny_cells: Cells, true_markers: set[int]
) -> None:
    swapped = {"astrocyte": {"neuron": 1.0}, "neuron": {"astrocyte": 1.0}}
    matrix = swapped if kind == "class_dependent" else {}
    noise = LabelNoise.model_validate({"level": 0.5, "kind": kind, "matrix": matrix})
    result = run_trial(trial_spec("scanpy_t_test", n_markers=9, noise=noise), tiny_cells)
    assert result.metrics["knn/accuracy"] < result.metrics["clean_knn/accuracy"]


def test_label_noise_affects_the_selector(tiny_cells: Cells, true_markers: set[int]) -> None:
    spec = trial_spec("scanpy_t_test", n_markers=9, replicates=3, noise=LabelNoise(level=1.0))
    noisy = run_trial(spec, tiny_cells)
    assert set(noisy.panel["gene_index"]) != true_markers


@pytest.mark.parametrize(("name", "n_fits"), [("markermap_unsupervised", 1), (DEEP, 3)])
def test_noise_levels_share_one_fit_if_the_method_ignores_labels(
    name: str, n_fits: int, tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [trial_spec(name, replicates=1, noise=LabelNoise(level=p)) for p in (0.0, 0.5, 1.0)]
    fitted = []
    original = trial_run.run_fits
    monkeypatch.setattr(trial_run, "run_fits", lambda fits: original(fitted.extend(fits) or fits))
    trials = [Trial(spec, tiny_cells) for spec in specs]
    for _ in run_trials(trials):
        pass
    assert len(fitted) == n_fits
    monkeypatch.undo()
    for trial, spec in zip(trials, specs, strict=True):
        alone = run_trial(spec, tiny_cells)
        shared = trial.result()
        assert shared.panel["gene"].tolist() == alone.panel["gene"].tolist()
        assert shared.metrics["knn/accuracy"] == alone.metrics["knn/accuracy"]


def test_label_noise_does_not_change_the_panel_of_an_unsupervised_method(tiny_cells: Cells) -> None:
    name = "markermap_unsupervised"
    clean, noisy = (
        run_trial(
            trial_spec(name, n_markers=30, replicates=2, noise=LabelNoise(level=p)), tiny_cells
        )
        for p in (0.0, 1.0)
    )
    assert noisy.panel.equals(clean.panel)
    assert noisy.metrics["knn/accuracy"] < clean.metrics["knn/accuracy"] - 0.2


# --- test cells are not used for selection


def with_other_counts(cells: Cells, changed: NDArray[np.int64]) -> Cells:
    """Return the cells with other counts in ``changed`` but the original fingerprint.

    The held-out test set depends on the fingerprint: another one would give another split.
    """
    adata = cells.adata.copy()
    counts = adata.X.toarray()
    counts[changed] = counts[changed][:, ::-1] * 2 + 1
    adata.X = sp.csr_matrix(counts)
    other = as_cells(adata)
    assert other.fingerprint != cells.fingerprint
    other.__dict__["fingerprint"] = cells.fingerprint
    return other


@every_selector
def test_a_search_does_not_depend_on_the_held_out_test_cells(name: str, tiny_cells: Cells) -> None:
    spec = trial_spec(name, protocol="search", replicates=2)
    held_out = split_of(spec, tiny_cells, 0).test
    assert len(held_out) == 24
    before = run_trial(spec, tiny_cells)
    after = run_trial(spec, with_other_counts(tiny_cells, held_out))
    assert_same_outcome(before, after)


def test_a_search_depends_on_the_training_cells(tiny_cells: Cells) -> None:
    """Counterpart of the test above, which would also pass for a trial that reads no cells."""
    spec = trial_spec("scanpy_t_test", protocol="search", replicates=2)
    train = split_of(spec, tiny_cells, 0).train
    before = run_trial(spec, tiny_cells)
    after = run_trial(spec, with_other_counts(tiny_cells, train))
    assert before.metrics != after.metrics


@every_selector
def test_the_panel_does_not_depend_on_the_test_cells(name: str, tiny_cells: Cells) -> None:
    spec = trial_spec(name)
    test = split_of(spec, tiny_cells, 0).test
    before = run_trial(spec, tiny_cells)
    after = run_trial(spec, with_other_counts(tiny_cells, test))
    assert before.replicates["panel"].tolist() == after.replicates["panel"].tolist()
    assert before.metrics != after.metrics


@every_epochless_selector
def test_a_search_does_not_evaluate_a_method_on_cells_that_it_was_fitted_on(
    name: str, tiny_cells: Cells
) -> None:
    """In a search, validation cells may stop the training, but no method is fitted on them."""
    spec = trial_spec(name, protocol="search")
    split = split_of(spec, tiny_cells, 0)
    z = prepare_layers(tiny_cells.adata, "total", "train_only", split.train)
    selector = make_selector(resolve_spec(spec, tiny_cells), tiny_cells, 0)
    y = tiny_cells.y
    if name == "shuffled_labels":
        y = selector.shuffle(y, split.train_validation)
    x, more = z[selector.input_layer], {}
    if not selector.fits_on_validation:
        more = {"X_val": x[split.validation], "y_val": y[split.validation]}
    expected = selector.fit(x[split.train], y[split.train], **more).panel_
    row = run_trial(spec, tiny_cells).replicates.iloc[0]
    assert row["panel"] == expected.tolist()


# --- epochs


def epochs_by_hand(spec: TrialSpec, cells: Cells, replicate: int) -> list[Any]:
    split = split_of(spec, cells, replicate)
    z = prepare_layers(cells.adata, "total", spec.recipe, split.train)["zscore"]
    train, validation = split.train, split.validation
    steps = make_selector(resolve_spec(spec, cells), cells, replicate).fit_epochs(
        z[train], cells.y[train], X_val=z[validation], y_val=cells.y[validation]
    )
    with limit_threads(1):
        return list(steps)


def test_the_history_is_the_mean_over_the_replicates(tiny_cells: Cells) -> None:
    # A replicate that stops early counts with its last epoch.
    params = SMALL | {"max_epochs": 8, "patience": 3}
    spec = trial_spec(DEEP, params=params, n_markers=2, replicates=3)
    by_hand = [epochs_by_hand(spec, tiny_cells, r) for r in range(3)]
    lengths = [len(epochs) for epochs in by_hand]
    assert min(lengths) < max(lengths)
    result = run_trial(spec, tiny_cells)
    assert result.replicates["epochs"].tolist() == lengths
    assert result.history["epoch"].tolist() == list(range(1, max(lengths) + 1))
    for i, row in result.history.iterrows():
        current = [epochs[min(int(str(i)), len(epochs) - 1)] for epochs in by_hand]
        # The replicates were trained as one batch, those by hand alone: they differ by rounding.
        assert row["train/loss"] == pytest.approx(
            np.mean([e.train_loss for e in current]), rel=1e-4
        )
        assert row["validation/loss"] == pytest.approx(
            np.mean([e.validation_loss for e in current]), rel=1e-3
        )
        assert row[OBJECTIVE] == pytest.approx(np.mean([e.validation_score for e in current]))
        assert row["temperature"] == max(current, key=lambda e: e.epoch).temperature


@pytest.mark.parametrize("name", [n for n in SELECTORS if SELECTORS[n].trains_in_epochs])
def test_the_last_objective_equals_the_final_metric_of_a_search(
    name: str, tiny_cells: Cells
) -> None:
    spec = trial_spec(name, protocol="search", replicates=2, noise=LabelNoise(level=0.1))
    result = run_trial(spec, tiny_cells)
    assert result.history[OBJECTIVE].iloc[-1] == pytest.approx(
        result.metrics[final_objective(name)], rel=1e-6
    )


def test_on_epoch_is_called_with_every_row_of_the_history(tiny_cells: Cells) -> None:
    seen: list[dict[str, float]] = []
    result = run_trial(trial_spec(DEEP, replicates=2), tiny_cells, on_epoch=seen.append)
    pd.testing.assert_frame_equal(pd.DataFrame(seen), result.history)
    assert list(result.history) == [
        "epoch",
        "temperature",
        "train/loss",
        "validation/loss",
        "validation/score",
    ]


def test_a_method_without_epochs_has_an_empty_history(tiny_cells: Cells) -> None:
    result = run_trial(trial_spec("random"), tiny_cells)
    assert result.history.empty
    assert result.replicates["epochs"].tolist() == [0]


def denormals_are_flushed() -> bool:
    tiny = torch.full((1,), torch.finfo(torch.float32).tiny)
    return bool((tiny / 4 == 0).all())


def test_an_abandoned_trial_restores_threads_and_floating_point_mode(tiny_cells: Cells) -> None:
    spec = trial_spec(DEEP, replicates=2)
    expected = run_trial(spec, tiny_cells)
    threads = torch.get_num_threads()
    trial = Trial(spec, tiny_cells)
    with limit_threads(1):
        steps = trial.epochs()
        next(steps)
        steps.close()  # type: ignore[attr-defined]
    assert len(trial.history) == 1
    assert not denormals_are_flushed()
    assert torch.get_num_threads() == threads
    assert_same_outcome(run_trial(spec, tiny_cells), expected)


def test_an_error_in_on_epoch_ends_the_trial_and_restores_threads(tiny_cells: Cells) -> None:
    def stop(epoch: dict[str, float]) -> None:
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        run_trial(trial_spec(DEEP), tiny_cells, on_epoch=stop, threads=before + 1)
    assert torch.get_num_threads() == before
    assert not denormals_are_flushed()


def test_limit_threads_restores_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    with limit_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


# --- specifications that cannot be run


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"selector": "randon", "params": {}}, ["'randon' is not among", "Did you mean 'random'?"]),
        (
            {"selector": DEEP, "params": {"betta": 0.5, "max_epochs": "many"}},
            ["betta is not a parameter of markermap_joint", "max_epochs must be int, got 'many'"],
        ),
        (
            {"selector": DEEP, "params": {"beta": 2.0, "hidden_size": 0}},
            ["beta is 2.0", "hidden_size is 0"],
        ),
        ({"n_markers": 41}, ["n_markers is 41, but tiny has 40 genes", "from 1 to 40"]),
    ],
    ids=["method", "parameters", "ranges", "k"],
)
def test_an_invalid_specification_is_rejected_before_any_work(
    changes: dict[str, Any], parts: list[str], tiny_cells: Cells
) -> None:
    spec = TrialSpec(
        **({"data": DataSpec(name="toy_xor"), "selector": "random", "n_markers": 3} | changes)
    )
    with pytest.raises(UserError) as caught:
        Trial(spec, tiny_cells)
    message = str(caught.value)
    known = spec.selector != "randon"
    assert message.startswith(f"{spec.selector} on tiny: " if known else "method 'randon' is not")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("params", "mistake"),
    [({"betta": 0.5}, "betta is not a parameter"), ({"hidden_size": 0}, "hidden_size is 0")],
)
def test_one_error_lists_all_mistakes_of_a_specification(
    params: dict[str, Any], mistake: str, tiny_cells: Cells
) -> None:
    spec = TrialSpec(
        data=DataSpec(name="toy_xor"),
        selector=DEEP,
        params=params,
        n_markers=41,
    )
    with pytest.raises(UserError, match="n_markers is 41") as caught:
        resolve_spec(spec, tiny_cells)
    assert mistake in str(caught.value)


def test_the_error_names_a_class_that_is_too_small_to_split(tiny_cells: Cells) -> None:
    adata = simulate_cells()
    rare = np.flatnonzero((adata.obs["cell_type"] == "neuron").to_numpy())[3:]
    few = as_cells(adata[np.setdiff1d(np.arange(120), rare)].copy())
    with pytest.raises(UserError, match="'neuron' has 3 cells"):
        resolve_spec(trial_spec("random"), few)


def test_resolve_spec_fills_in_defaults_and_changes_nothing_else(tiny_cells: Cells) -> None:
    spec = trial_spec(DEEP, params={"beta": 0.5})
    full = resolve_spec(spec, tiny_cells)
    # 64 is the published width of the hidden layers for fewer than 1000 genes.
    assert full.params == default_params(DEEP) | {"beta": 0.5, "hidden_size": 64}
    assert full.model_copy(update={"params": spec.params}) == spec
    assert resolve_spec(full, tiny_cells) == full


def test_each_replicate_has_a_selector_with_its_own_seed(tiny_cells: Cells) -> None:
    spec = trial_spec("random", seed=0)
    seeds = [make_selector(spec, tiny_cells, r).seed for r in range(4)]
    assert len(set(seeds)) == 4
    assert seeds == [make_selector(spec, tiny_cells, r).seed for r in range(4)]
    assert make_selector(spec, tiny_cells, 0).n_markers == 6


def test_the_dataset_is_loaded_if_no_cells_are_given() -> None:
    spec = TrialSpec(data=DataSpec(name="pbmc68k_reduced"), selector="random", n_markers=5)
    result = run_trial(spec)
    assert result.fingerprint.startswith("342d9c62")
    assert len(result.classes) == 10
