"""Names of genes in panel constraints: two names of a gene, hints for unknown names."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from tiny import simulate_cells

from mmlab.constraints.gene_names import use_gene_names
from mmlab.constraints.measure import consensus_constraints
from mmlab.datasets.cells import Cells, make_cells
from mmlab.errors import UserError
from mmlab.spec.comparison import ComparisonSpec, MethodSpec
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.trial.defaults import resolve_spec

DATA = DataSpec(path="cells.h5ad", label_key="cell_type")


@pytest.fixture(scope="module")
def cells() -> Cells:
    """Genes SYM0, SYM1, ... with the ids ENSG00000000000.1, ENSG00000000001.2, ..."""
    adata = simulate_cells()
    ids = pd.Index([f"ENSG{i:011d}.{i + 1}" for i in range(adata.n_vars)])
    adata.var_names = [f"SYM{i}" for i in range(adata.n_vars)]
    return make_cells(
        adata, "cell_type", name="both", normalization="total", origin="", gene_ids=ids
    )


def trial(**changes: Any) -> TrialSpec:
    return TrialSpec.model_validate(
        {"data": DATA, "selector": "scanpy_t_test", "n_markers": 6} | changes
    )


def test_either_name_gives_the_same_trial(cells: Cells) -> None:
    constraints = {"weights": {"SYM3": 2.0, "SYM4": 0}, "groups": {"SYM7": "a"}, "max_per_group": 1}
    symbols = trial(include=["SYM3"], exclude=["SYM5"], constraints=constraints)
    by_id = {
        "weights": {"ENSG00000000003.4": 2.0, "SYM4": 0},
        "groups": {"ENSG00000000007.8": "a"},
        "max_per_group": 1,
    }
    ids = trial(include=["ENSG00000000003.4"], exclude=["SYM5"], constraints=by_id)
    resolved = resolve_spec(ids, cells)
    assert resolved == resolve_spec(symbols, cells)
    assert resolved.digest("0") != ids.digest("0")


def test_a_gene_that_is_named_twice_is_a_duplicate(cells: Cells) -> None:
    with pytest.raises(UserError, match="include contains duplicate genes: SYM3"):
        resolve_spec(trial(include=["SYM3", "ENSG00000000003.4"]), cells)


def test_the_consensus_of_a_study_takes_either_name(cells: Cells) -> None:
    study = ComparisonSpec(
        data=DATA,
        methods=[MethodSpec(selector="scanpy_t_test")],
        include=["ENSG00000000003.4"],
        constraints={"weights": {"ENSG00000000004.5": 2.0}},
    )
    assert consensus_constraints(study, cells, [], []).include == [3]


def test_names_of_cells_with_one_name_are_kept(tiny_cells: Cells) -> None:
    spec = trial(include=["Gene3", "unknown"])
    assert use_gene_names(spec, tiny_cells) is spec


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ENSG00000000003", "ENSG00000000003.4"),
        ("ENSG00000000003.9", "ENSG00000000003.4"),
        ("sym12", "SYM12"),
        ("SYMM31", "SYM31"),
        ("sym-12", "SYM12"),
        ("Sym.1.2", "SYM12"),
        ("SYN12", "SYM12"),
        ("SYM120", None),
        ("CD3E", None),
    ],
)
def test_unknown_names_get_the_nearest_known_one(
    name: str, nearest: str | None, cells: Cells
) -> None:
    with pytest.raises(UserError) as caught:
        resolve_spec(trial(include=["SYM1", name]), cells)
    hint = f" (did you mean {nearest!r}?)" if nearest else ""
    assert f"include: 1 of 2 genes are not in both: {name!r}{hint}." in str(caught.value)
