"""Panel constraints: validation, measurement on cells, and that every method satisfies them."""

from __future__ import annotations

import inspect
import json
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from tiny import CLASSES, MARKERS, N_GENES, SMALL, SMALL_OF_ALL

import mmlab
from mmlab.constraints.check import constraint_problems
from mmlab.constraints.describe import describe_constraints, escape_markdown
from mmlab.constraints.measure import (
    GeneMeasurements,
    marked_types,
    measure_genes,
    resolve_constraints,
)
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.preprocessing.splits import replicate_split
from mmlab.selectors import SELECTORS
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.constraints import Constraints, constraints_key
from mmlab.spec.trial import DataSpec, LabelNoise, TrialSpec
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.result import TrialResult
from mmlab.trial.run import OBJECTIVE, Trial, run_trial, run_trials

K = 9
#: Markers of the first two types on the training cells of replicate 0, simulated and by chance.
ASTROCYTE = [f"Gene{i}" for i in (3, 12, 17, 24, 28, 29, 31, 35)]
MICROGLIA = [f"Gene{i}" for i in (5, 6, 11, 18, 19, 25, 38)]
#: All constraints: 2 genes per family, a maximum mean count, 2 markers per type, weights.
FAMILIES = {f"Gene{i}": f"family {i % 4}" for i in range(36)}
EVERYTHING: dict[str, Any] = {
    "groups": FAMILIES,
    "max_per_group": 2,
    "max_mean_counts": 6.5,
    "min_per_type": 2,
    "weights": {"Gene3": 0, "Gene39": 20, "Gene1": 0.5},
}


def spec_of(selector: str = "scanpy_t_test", **changes: Any) -> TrialSpec:
    known = inspect.signature(SELECTORS[selector]).parameters
    params = {name: value for name, value in SMALL_OF_ALL.items() if name in known}
    fields: dict[str, Any] = {
        "data": DataSpec(name="toy_xor"),
        "selector": selector,
        "params": params,
        "n_markers": K,
    }
    return TrialSpec.model_validate(fields | changes)


def assert_satisfied(panel: list[int], spec: TrialSpec, cells: Cells, index: int = 0) -> None:
    """Assert by definition that a panel satisfies the constraints on its training cells."""
    constraints, genes = spec.constraints, cells.genes[panel].tolist()
    assert len(set(genes)) == spec.n_markers
    assert genes[: len(spec.include)] == spec.include
    assert not set(genes) & set(spec.exclude)
    families = [constraints.groups[gene] for gene in genes if gene in constraints.groups]
    if families:
        assert max(map(families.count, families)) <= (constraints.max_per_group or 0)
    assert all(constraints.weights.get(gene, 1) > 0 for gene in genes)
    train = replicate_split(spec, cells, index).train
    counts, y = cells.adata.X[train].toarray(), cells.y[train]
    if constraints.max_mean_counts is not None:
        assert counts.mean(axis=0)[panel].max() <= constraints.max_mean_counts
    minimum = constraints.min_per_type or 0
    for t in range(len(cells.classes)) if minimum else ():
        assert sum(is_marker(counts, y, gene, t) for gene in panel) >= minimum


def is_marker(counts: np.ndarray, y: np.ndarray, gene: int, of: int) -> bool:
    """Return by definition whether a gene is a marker of a type."""
    values = np.log1p(1e4 * counts[:, gene] / counts.sum(axis=1))
    means = [values[y == t].mean() for t in range(y.max() + 1)]
    return means[of] == max(means) and means[of] - values[y != of].mean() >= np.log(2)


# --- the specification


def test_a_trial_without_constraints_keeps_its_digest() -> None:
    spec = TrialSpec(
        data=DataSpec(name="zeisel"),
        selector="markermap_supervised",
        params={"beta": 0.9, "hidden_size": 64},
        include=["gene_3"],
    )
    recorded = "505eca65851c9247fa2e9fd8afef4e935ef6aa8a79c39c134a25311e582cfd6a"
    assert spec.digest("ab" * 32) == recorded
    unconstrained = spec.model_copy(update={"constraints": Constraints()})
    assert unconstrained.digest("ab" * 32) == recorded
    assert "constraints" not in spec.model_dump()
    assert "constraints" not in spec.model_dump_json()


def test_a_comparison_without_constraints_keeps_its_digest() -> None:
    spec = ComparisonSpec(data=DataSpec(name="zeisel"), methods=["random"])
    assert spec.digest("ab" * 32) == (
        "0c10ecfc9427dcfa588fed73aa44b2a12a969ae195ea19eb3d797a1f7f41cb50"
    )


def test_constraints_survive_a_json_round_trip_and_change_the_digest() -> None:
    spec = spec_of(constraints=EVERYTHING)
    again = TrialSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.digest("ab" * 32) == spec.digest("ab" * 32)
    changed = spec_of(constraints=EVERYTHING | {"min_per_type": 1})
    assert len({s.digest("ab" * 32) for s in (spec, changed, spec_of())}) == 3


def test_a_study_passes_its_constraints_to_its_trials() -> None:
    panel_constraints = {"include": ["Gene0"], "exclude": ["Gene1"], "constraints": EVERYTHING}
    study = ComparisonSpec.model_validate(
        {"data": {"name": "toy_xor"}, "methods": ["random"], "n_markers": [K], **panel_constraints}
    )
    trial = study.trial(study.methods[0], study.settings[0], 0)
    assert (trial.include, trial.exclude) == (["Gene0"], ["Gene1"])
    assert trial.constraints == Constraints(**EVERYTHING)
    assert constraints_key(trial) == constraints_key(study) != ""
    assert constraints_key(spec_of()) == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": {"A": "x"}}, "groups and max_per_group go together"),
        ({"max_per_group": 2}, "groups and max_per_group go together"),
        ({"weights": {"A": -1}}, "a weight must be 0 .* or between 0.001 and 1000, got -1"),
        ({"weights": {"A": 1e9}}, "got 1e.09"),
        ({"weights": {"A": float("nan")}}, "finite"),
        ({"min_per_type": 0}, "greater than or equal to 1"),
        ({"max_mean_counts": 0}, "greater than 0"),
        ({"weights": {"": 1}}, "at least 1 character"),
    ],
)
def test_invalid_constraints_are_rejected(fields: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Constraints(**fields)


# --- contradictions


def test_all_contradictions_are_in_one_error(tiny_cells: Cells) -> None:
    spec = spec_of(
        include=["Gene0", "Gene4", "Gene8", "Gene5"],
        exclude=["Gene5", "Nowhere"],
        constraints=EVERYTHING
        | {"min_per_type": 4, "weights": {"Gene4": 0, "Gone": 1}, "groups": FAMILIES | {"X1": "a"}},
    )
    with pytest.raises(UserError) as caught:
        resolve_spec(spec, tiny_cells)
    for part in (
        "exclude: 1 of 2 genes are not in tiny: 'Nowhere'",
        "groups: 1 of 37 genes are not in tiny: 'X1'",
        "weights: 1 of 2 genes are not in tiny: 'Gone'",
        "Gene5: both included and excluded",
        "Gene4: included, but with weight 0",
        "include lists 3 genes of group 'family 0', more than max_per_group 2",
        "min_per_type 4 needs 12 genes for 3 types, because a gene is a marker of at most one "
        "type; n_markers is 9",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"constraints": {"groups": {f"Gene{i}": "a" for i in range(35)}, "max_per_group": 3}},
            "max_per_group 3 allows panels of at most 8 genes, fewer than n_markers 9",
        ),
        (
            {"constraints": {"weights": {f"Gene{i}": 0 for i in range(32)}}},
            "exclude with weights of 0 leaves 8 genes, fewer than n_markers 9",
        ),
        ({"include": ["Gene1", "Gene1"]}, "include contains duplicate genes: Gene1"),
        (
            {"selector": "all_genes", "constraints": {"min_per_type": 1}},
            "all_genes selects all genes; the only constraint that it supports is include",
        ),
    ],
)
def test_impossible_constraints_are_rejected_before_cells_are_read(
    changes: Any, message: str, tiny_cells: Cells
) -> None:
    with pytest.raises(UserError, match=message):
        resolve_spec(spec_of(**changes), tiny_cells)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"include": ["Gene3"], "constraints": {"max_mean_counts": 2.5}},
            r"Gene3 \(5\.43\): included, but with a mean count above max_mean_counts 2.5",
        ),
        (
            {"constraints": {"max_mean_counts": 0.5}},
            "max_mean_counts 0.5 leaves 0 genes, fewer than n_markers 9",
        ),
        (
            {"exclude": ASTROCYTE[1:], "constraints": {"min_per_type": 2}},
            r"min_per_type 2: too few marker genes of 'astrocyte' \(1\)",
        ),
        (
            {
                "constraints": {
                    "min_per_type": 2,
                    "max_per_group": 1,
                    "groups": dict.fromkeys(MICROGLIA, "a"),
                }
            },
            "min_per_type 2: max_per_group 1 leaves too few marker genes of "
            r"'microglia' \(1\)",
        ),
        (
            {
                "n_markers": 3,
                "constraints": {
                    "min_per_type": 1,
                    "max_per_group": 1,
                    "groups": dict.fromkeys(ASTROCYTE + MICROGLIA, "a"),
                },
            },
            "no panel of 3 genes satisfies all constraints",
        ),
    ],
)
def test_constraints_that_the_training_cells_rule_out_are_rejected_before_training(
    changes: Any, message: str, tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SELECTORS["scanpy_t_test"], "run", None)
    with pytest.raises(UserError, match=message):
        run_trial(spec_of(**changes), tiny_cells)


def test_replicates_that_cannot_satisfy_the_constraints_are_listed(tiny_cells: Cells) -> None:
    trial = Trial(spec_of(replicates=2, constraints={"max_mean_counts": 0.5}), tiny_cells)
    with pytest.raises(UserError, match=r"fewer than n_markers 9 \(replicate 0, 1\)\.$"):
        trial.check_constraints()


def test_gene_names_are_escaped_in_markdown() -> None:
    names = ["<img src=x onerror=alert(1)>", "a_b*[c](d)`\\", "Gene & Co"]
    spec = TrialSpec(data=DataSpec(name="tiny"), selector="random", include=names)
    (plain,) = describe_constraints(spec)
    assert plain == f"Every panel includes {', '.join(names)}."
    (markdown,) = describe_constraints(spec, escape_markdown)
    assert "<" not in markdown
    assert r"a\_b\*\[c\](d)\`\\" in markdown
    assert "Gene &amp; Co" in markdown


# --- measurement on cells


def test_marked_types_follow_the_definition(tiny_cells: Cells) -> None:
    counts, y = tiny_cells.adata.X, tiny_cells.y
    marked = measure_genes(counts, np.arange(len(y)), y, 3).marked_types
    dense = counts.toarray()
    for gene in range(N_GENES):
        types = [t for t in range(3) if is_marker(dense, y, gene, t)]
        assert marked[gene] == (types[0] if types else -1)
    for t, genes in enumerate(MARKERS):
        assert (marked[list(genes)] == t).all()


def test_a_type_without_cells_has_no_markers() -> None:
    sums = np.array([[6.0, 0.1], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert marked_types(sums, np.array([2, 0, 1, 0])).tolist() == [0, -1]


def measure_all(cells: Cells) -> GeneMeasurements:
    return measure_genes(cells.adata.X, np.arange(len(cells.y)), cells.y, 3)


def test_excluded_genes_of_all_constraints_are_combined(tiny_cells: Cells) -> None:
    spec = spec_of(
        exclude=["Gene7", "Gene7"],
        constraints={"max_mean_counts": 5.9, "weights": {"Gene9": 0, "Gene7": 0}},
    )
    panel_constraints = resolve_constraints(spec, tiny_cells, measure_all(tiny_cells))
    above_limit = np.flatnonzero(tiny_cells.adata.X.toarray().mean(axis=0) > 5.9).tolist()
    assert above_limit
    assert panel_constraints.exclude == [7, 9, *above_limit]


# --- panels of all methods


@pytest.mark.parametrize("name", sorted(set(SELECTORS) - {"all_genes"}))
def test_every_method_satisfies_all_constraints(name: str, tiny_cells: Cells) -> None:
    spec = spec_of(name, include=["Gene0", "Gene36"], exclude=["Gene5"], constraints=EVERYTHING)
    result = run_trial(spec, tiny_cells)
    (row,) = result.replicates.to_dict(orient="records")
    assert_satisfied(row["panel"], result.spec, tiny_cells)
    assert result.panel["gene_index"].tolist() == row["panel"]
    marked = [tiny_cells.classes[t] for t in row["marked"] if t >= 0]
    assert all(marked.count(name) >= 2 for name in CLASSES)
    again = TrialResult.from_json(result.to_json())
    assert again.replicates["marked"].tolist() == [row["marked"]]


@pytest.mark.parametrize(
    "name", ["global_gumbel_vae", "concrete_vae", "persist_supervised", "cosg"]
)
def test_a_panel_of_included_genes_only_may_have_constraints(name: str, tiny_cells: Cells) -> None:
    include = [f"Gene{i}" for i in (3, 31, 5, 38, 8, 27, 36, 37, 39)]
    constraints = {"min_per_type": 2, "groups": FAMILIES, "max_per_group": 4}
    result = run_trial(spec_of(name, include=include, constraints=constraints), tiny_cells)
    assert result.panel["gene"].tolist() == include


@pytest.mark.parametrize("name", ["markermap_supervised", "concrete_vae", "scanpy_t_test"])
def test_the_consensus_panel_satisfies_the_constraints(name: str, tiny_cells: Cells) -> None:
    spec = spec_of(name, replicates=3, include=["Gene36"], constraints=EVERYTHING)
    result = run_trial(spec, tiny_cells)
    panels = result.replicates["panel"].tolist()
    for index, panel in enumerate(panels):
        assert_satisfied(panel, result.spec, tiny_cells, index)
    consensus = result.panel["gene_index"].tolist()
    assert consensus[0] == 36
    assert set(consensus) <= {gene for panel in panels for gene in panel}
    families = [FAMILIES[g] for g in result.panel["gene"] if g in FAMILIES]
    assert max(map(families.count, families)) <= 2
    # A marker gene of the consensus panel was one in a replicate that selected it.
    selected = pd.DataFrame(
        {"gene": np.concatenate(panels), "type": np.concatenate([*result.replicates["marked"]])}
    )
    for t in range(3):
        assert len(set(selected["gene"][selected["type"] == t]) & set(consensus)) >= 2


def test_weights_reorder_a_panel_and_inactive_constraints_do_not_change_it(
    tiny_cells: Cells,
) -> None:
    def panel(**constraints: Any) -> list[int]:
        result = run_trial(spec_of(constraints=constraints), tiny_cells)
        genes: list[int] = result.panel["gene_index"].tolist()
        return genes

    unconstrained = panel()
    inactive = {"groups": FAMILIES, "max_per_group": K, "max_mean_counts": 1e6, "min_per_type": 1}
    assert panel(**inactive) == unconstrained
    assert panel(weights={f"Gene{unconstrained[-1]}": 1000})[0] == unconstrained[-1]


def test_the_objective_of_a_search_is_the_score_of_the_constrained_panel(
    tiny_cells: Cells,
) -> None:
    spec = spec_of(
        "markermap_joint",
        protocol="search",
        constraints=EVERYTHING | {"max_mean_counts": None},
    )
    trial = Trial(spec, tiny_cells)
    scores = [epoch[OBJECTIVE] for epoch in trial.epochs()]
    result = trial.result()
    assert_satisfied(result.panel["gene_index"].tolist(), result.spec, tiny_cells)
    assert scores[-1] == result.metrics["validation/knn/accuracy"]


def test_the_panel_of_every_epoch_satisfies_the_rules_and_is_the_only_decoder_input(
    tiny_cells: Cells, zscore: np.ndarray
) -> None:
    from mmlab.selectors.global_gumbel_vae import GlobalGumbelVAE

    spec = spec_of(constraints=EVERYTHING)
    panel_constraints = resolve_constraints(spec, tiny_cells, measure_all(tiny_cells))
    assert panel_constraints.rules is not None
    selector = GlobalGumbelVAE(K, **SMALL)
    lists: dict[str, Any] = {"exclude": panel_constraints.exclude, "rules": panel_constraints.rules}
    n_epochs = 0
    for epoch in selector.fit_epochs(zscore, X_val=zscore[:30], **lists):
        n_epochs += 1
        assert panel_constraints.rules.satisfied_by(epoch.panel)
        np.testing.assert_array_equal(selector.panel_, epoch.panel)
    assert n_epochs == SMALL["max_epochs"]
    unmeasured = zscore.copy()
    unmeasured[:, np.setdiff1d(np.arange(N_GENES), selector.panel_)] = 5.0
    np.testing.assert_array_equal(selector.reconstruct(zscore), selector.reconstruct(unmeasured))
    changed = zscore.copy()
    changed[:, selector.panel_[0]] += 2
    assert not np.array_equal(selector.reconstruct(zscore), selector.reconstruct(changed))


def test_models_trained_as_one_batch_satisfy_their_own_constraints(tiny_cells: Cells) -> None:
    specs = [
        spec_of(
            "markermap_supervised",
            first_replicate=index,
            constraints={"min_per_type": 3, "groups": FAMILIES, "max_per_group": 3},
        )
        for index in range(3)
    ]
    trials = [Trial(spec, tiny_cells) for spec in specs]
    for _ in run_trials(trials):
        pass
    for index, (spec, trial) in enumerate(zip(specs, trials, strict=True)):
        batched = trial.result().panel["gene_index"].tolist()
        assert_satisfied(batched, spec, tiny_cells, index)
        separate = run_trial(spec, tiny_cells).panel["gene_index"].tolist()
        assert batched == separate


def test_marker_genes_are_determined_with_the_noisy_labels(tiny_cells: Cells) -> None:
    constraints = {"min_per_type": 2}
    # The method ignores labels: its panel depends on them only through the constraint.
    clean, noisy = (
        Trial(spec_of("random", noise=LabelNoise(level=level), constraints=constraints), tiny_cells)
        for level in (0.0, 0.1)
    )
    for _ in run_trials([clean, noisy]):
        pass
    assert clean._finished[0].marked is not None
    for trial in (clean, noisy):
        rules = trial.panel_constraints[0].rules
        assert rules is not None
        assert rules.satisfied_by(trial._finished[0].panel)
    assert clean._fit_identity(0) != noisy._fit_identity(0)
    noisier = spec_of("random", noise=LabelNoise(level=1.0), constraints=constraints)
    with pytest.raises(UserError, match="min_per_type 2: too few marker genes"):
        run_trial(noisier, tiny_cells)


def test_shuffled_labels_satisfies_constraints_measured_with_the_true_labels(
    tiny_cells: Cells,
) -> None:
    result = run_trial(spec_of("shuffled_labels", constraints={"min_per_type": 2}), tiny_cells)
    assert_satisfied(result.panel["gene_index"].tolist(), result.spec, tiny_cells)


# --- descriptions and stored constraints


def test_constraints_are_described(tiny_cells: Cells) -> None:
    spec = spec_of(include=["Gene0"], exclude=["Gene1"], constraints=EVERYTHING)
    text = " ".join(describe_constraints(spec))
    for part in (
        "Every panel includes Gene0.",
        "No panel includes Gene1.",
        "At most 2 genes per group (36 genes in 4 groups).",
        "Genes with a mean of more than 6.5 counts per training cell are excluded.",
        "At least 2 marker genes per cell type.",
        "Weighted genes: 2, with weights from 0.5 to 20.",
        "Genes of weight 0 are excluded: Gene3.",
    ):
        assert part in text
    assert describe_constraints(spec_of()) == []
    assert constraint_problems(spec, tiny_cells) == []


def test_select_markers_satisfies_and_stores_the_constraints(tiny_adata: ad.AnnData) -> None:
    tiny_adata.var["family"] = pd.Series(FAMILIES)
    result = mmlab.select_markers(
        tiny_adata,
        "cell_type",
        K,
        method="scanpy_t_test",
        groups=tiny_adata.var["family"].dropna().to_dict(),
        max_per_group=2,
        min_per_type=2,
        weights={"Gene3": 0},
        copy=True,
    )
    assert result is not None
    panel = result.uns["mmlab"]["panel"]
    families = [FAMILIES[gene] for gene in panel if gene in FAMILIES]
    assert max(map(families.count, families)) <= 2
    assert "Gene3" not in panel
    stored = json.loads(result.uns["mmlab"]["constraints"])
    assert stored["constraints"]["groups"] == FAMILIES
    with pytest.raises(UserError, match=r"too few marker genes of 'astrocyte' \(7\)"):
        mmlab.select_markers(tiny_adata, "cell_type", 30, method="random", min_per_type=9)
    assert "mmlab" not in tiny_adata.uns
