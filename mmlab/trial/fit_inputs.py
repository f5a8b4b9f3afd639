"""Build the selector of a replicate and the data that it is fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlab.constraints.measure import PanelConstraints
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.splits import Split
from mmlab.selectors import get_selector
from mmlab.selectors.base import Selector
from mmlab.selectors.controls import Oracle
from mmlab.selectors.training_data import TrainingData
from mmlab.spec.trial import TrialSpec


def make_selector(spec: TrialSpec, cells: Cells, replicate: int) -> Selector:
    """Return the unfitted selector of one replicate.

    Raises
    ------
    UserError
        The selector is the oracle and the true markers of ``cells`` are not known.
    """
    stream = random_stream(spec.seed, replicate, Stream.SELECTOR)
    params: dict[str, Any] = {"seed": int(stream.integers(2**31)), **spec.params}
    factory: Any = get_selector(spec.selector)
    if factory is Oracle:
        params["markers"] = known_markers(cells)
    selector: Selector = factory(spec.n_markers, **params)
    return selector


def known_markers(cells: Cells) -> list[int]:
    """Return the gene indices of the true markers of simulated cells.

    Raises
    ------
    UserError
        The dataset is not simulated: ``var`` has no column ``is_marker``.
    """
    if "is_marker" not in cells.adata.var:
        raise UserError(
            f"oracle needs known true markers, but those of {cells.name} are not known; use a "
            "simulated dataset."
        )
    return np.flatnonzero(cells.adata.var["is_marker"].to_numpy()).tolist()


def training_data(
    selector: Selector,
    layers: Any,
    y: NDArray[np.int64],
    split: Split,
    panel_constraints: PanelConstraints,
    *,
    in_search: bool = False,
) -> TrainingData:
    """Return the checked data that a selector is fitted on: the cells of a split it may see.

    Test cells are never included. A selector with ``fits_on_validation`` is fitted on training
    and validation cells; the others get the validation cells separately, to stop early.

    Parameters
    ----------
    selector
        The unfitted selector.
    layers
        Matrices of all cells by name, from :func:`mmlab.preprocessing.recipes.prepare_layers`.
    y
        Class index of each cell.
    split
        Training, validation and test cells.
    panel_constraints
        Constraints that the panel satisfies.
    in_search
        Whether the trial belongs to a search. A search evaluates on the validation cells, so no
        method is fitted on them.
    """
    layer = layers[selector.input_layer]
    options: dict[str, Any] = {
        name: getattr(panel_constraints, name) for name in ("include", "exclude", "rules")
    }
    cells = split.train
    if selector.fits_on_validation:
        cells = split.train if in_search else split.train_validation
    else:
        options |= {"X_val": layer[split.validation], "y_val": y[split.validation]}
    if selector.needs_counts:
        options["counts"] = layers["counts"][cells]
    return selector.check_data(layer[cells], y[cells], **options)
