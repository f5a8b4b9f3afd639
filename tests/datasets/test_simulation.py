from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import run

from mmlab.datasets import DATASETS, load_cells
from mmlab.datasets import cells as cells_module
from mmlab.datasets.cache.cache_paths import FOLDER_VARIABLE, cache_folder
from mmlab.datasets.cache.install import simulate_dataset
from mmlab.datasets.io.checks import find_problems
from mmlab.datasets.simulation import Simulation
from mmlab.errors import UserError
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.trial.run import run_trial

SMALL = Simulation("toy", n_cells=600, n_genes=200, n_types=6, density=0.3, seed=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))


def test_simulated_counts_have_the_requested_sizes() -> None:
    adata = SMALL.load()
    assert adata.shape == (600, 200)
    assert adata.obs["cell_type"].nunique() == 6
    assert adata.X.nnz / (600 * 200) == pytest.approx(0.3, abs=0.05)
    assert adata.var["is_marker"].sum() == 20
    assert find_problems(adata, "cell_type") == []


def test_counts_depend_on_the_seed() -> None:
    first, again = SMALL.load(), SMALL.load()
    assert (first.X != again.X).nnz == 0
    other = Simulation("toy", 600, 200, 6, 0.3, seed=2).load()
    assert (first.X != other.X).nnz > 0


def test_markers_separate_types_better_than_other_genes() -> None:
    adata = Simulation("toy", 4000, 300, 8, 0.3, seed=0).load()
    counts, y = adata.X.toarray(), adata.obs["cell_type"].cat.codes.to_numpy()
    log_counts = np.log1p(counts)
    means = np.stack([log_counts[y == t].mean(axis=0) for t in range(8)])
    spread = np.ptp(means, axis=0)
    is_marker = adata.var["is_marker"].to_numpy()
    assert spread[~is_marker].min() > 0
    assert np.median(spread[is_marker]) > np.quantile(spread[~is_marker], 0.99)


def test_the_t_test_is_better_than_random_and_not_better_than_the_oracle() -> None:
    cells = cells_module.make_cells(
        Simulation("toy", 3000, 300, 20, 0.2).load(),
        "cell_type",
        name="toy_simulated",
        normalization="total",
        origin="simulated",
        simulated=True,
    )
    random, t_test, oracle = (
        run_trial(
            TrialSpec(data=DataSpec(name="toy_simulated"), selector=name, n_markers=30), cells
        ).metrics["random_forest/accuracy"]
        for name in ("random", "scanpy_t_test", "oracle")
    )
    assert random + 0.3 < t_test < oracle + 0.02


def test_too_few_cells_for_the_types_are_rejected() -> None:
    with pytest.raises(UserError, match="30 cells are too few for 59 types, which need 4 each"):
        simulate_dataset(DATASETS["mouse_brain_subtypes"], "few_simulated", n_cells=30)
    assert not (cache_folder() / "datasets").exists()


# --- the command line


def test_the_record_of_a_simulated_dataset_says_simulated() -> None:
    code, out = run("datasets", "simulate", "--like", "pbmc68k_reduced", "--cells", "200", "--json")
    assert code == 0
    record = json.loads(out)
    assert record["name"] == "pbmc68k_reduced_simulated_cells200"
    assert record["simulated"]
    for key in ("title", "origin"):
        assert "simulated" in record[key]
    assert any("Simulated counts" in note for note in record["notes"])
    assert (record["n_cells"], record["n_genes"], record["n_classes"]) == (200, 765, 10)
    assert record["name"] in run("datasets", "list")[1]


def test_loading_a_simulated_dataset_simulates_it() -> None:
    cells = load_cells(DataSpec(name="pbmc68k_reduced_simulated"))
    assert cells.adata.shape == (700, 765)
    assert cells.name == "pbmc68k_reduced_simulated"
    assert cells.simulated


def test_the_name_of_a_simulated_dataset_must_contain_simulated() -> None:
    code, message = run("datasets", "simulate", "--like", "citeseq", "--name", "real")
    assert code == 2
    assert "--name real must contain the word simulated" in message
    code, message = run("datasets", "simulate", "--like", "citseq")
    assert "dataset 'citseq' is not among" in message


def test_an_assumed_density_is_noted() -> None:
    code, out = run("datasets", "simulate", "--like", "paul", "--cells", "100", "--json")
    assert code == 0
    assert any(
        "0.1, is assumed: paul is not on this machine" in n for n in json.loads(out)["notes"]
    )
