"""A selector fitted on all cells of an AnnData, without an evaluation."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from anndata import AnnData

from mmlab.constraints.measure import measure_genes, needs_cells, resolve_constraints
from mmlab.datasets.cells import Cells, make_cells
from mmlab.datasets.io.checks import require_usable
from mmlab.errors import UserError
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.recipes import prepare_layers
from mmlab.preprocessing.splits import Split, partition
from mmlab.selectors import Selector
from mmlab.spec.protocol import MIN_CELLS_PER_PART
from mmlab.spec.trial import TrialSpec
from mmlab.spec.yaml import parse_spec
from mmlab.system.threads import limit_threads
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.fit_inputs import make_selector, training_data


def fit_on_all_cells(adata: AnnData, content: dict[str, Any]) -> tuple[Selector, TrialSpec, Cells]:
    """Return the fitted selector, the specification with all defaults, and the used cells."""
    spec = parse_spec(TrialSpec, content, "select_markers")
    data, label_key = spec.data, str(spec.data.label_key)
    usable, found = require_usable(adata, label_key, data.layer, "adata", data)
    ids = usable.var_names if found.gene_ids is None else found.gene_ids
    if list(ids) != list(adata.var_names):
        raise UserError(
            f"adata: the raw counts are in raw, which has {usable.n_vars} genes of its own where "
            f"adata has {adata.n_vars}: call select_markers on adata.raw.to_adata()."
        )
    for note in found.notes:
        print(f"adata: {note}", file=sys.stderr)
    cells = make_cells(
        usable,
        label_key,
        name="adata",
        normalization="total",
        origin="memory",
        gene_ids=found.gene_ids,
    )
    spec = resolve_spec(spec, cells)
    n = len(cells.y)
    sizes = (n - n // 8, n // 8)
    rng = random_stream(spec.seed, 0, Stream.SPLIT)
    train, validation = partition(cells.y, np.arange(n), sizes, MIN_CELLS_PER_PART[:2], rng)
    measured = None
    if needs_cells(spec.constraints):
        measured = measure_genes(cells.adata.X, train, cells.y, len(cells.classes))
    panel_constraints = resolve_constraints(spec, cells, measured)
    layers = prepare_layers(cells.adata, cells.normalization, spec.recipe, train)
    selector = make_selector(spec, cells, 0)
    split = Split(train, validation, test=validation[:0])
    with limit_threads(1):
        for _ in selector.run(training_data(selector, layers, cells.y, split, panel_constraints)):
            pass
    return selector, spec, cells
