"""From a trial's specification to a selector at work: its parameters, its genes, its cells."""

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
    """The selector of one replicate, not fitted.

    Raises
    ------
    UserError
        The oracle is asked for on data whose markers are not known.
    """
    stream = random_stream(spec.seed, replicate, Stream.SELECTOR)
    params: dict[str, Any] = {"seed": int(stream.integers(2**31)), **spec.params}
    factory: Any = get_selector(spec.selector)
    if factory is Oracle:
        params["markers"] = known_markers(cells)
    selector: Selector = factory(spec.n_markers, **params)
    return selector


def known_markers(cells: Cells) -> list[int]:
    """Indices of the true markers of simulated cells.

    Raises
    ------
    UserError
        Nobody knows them.
    """
    if "is_marker" not in cells.adata.var:
        raise UserError(
            f"oracle needs data whose markers are known, and nobody knows those of {cells.name}; "
            "simulated data have them."
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
    """What a selector is fitted on: the cells of a split that it may see.

    In a search the validation cells are the ones to judge on: no method is fitted on them.

    Parameters
    ----------
    layers
        Matrices of all cells by name, from :func:`mmlab.preprocessing.recipes.prepare_layers`.
    panel_constraints
        What the panel holds.
    """
    layer = layers[selector.input_layer]
    more: dict[str, Any] = {
        name: getattr(panel_constraints, name) for name in ("include", "exclude", "rules")
    }
    cells = split.train
    if selector.fits_on_validation:
        cells = split.train if in_search else split.train_validation
    else:
        more |= {"X_val": layer[split.validation], "y_val": y[split.validation]}
    if selector.needs_counts:
        more["counts"] = layers["counts"][cells]
    return selector.checked(layer[cells], y[cells], **more)
