"""UMAPs of the panels of a comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmlab.comparison import panel_umaps as module
from mmlab.comparison.panel_umaps import panel_umaps
from mmlab.datasets.cells import Cells
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import DataSpec


def test_the_first_replicate_of_a_method_is_drawn_at_every_setting(
    tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Instead of the embedding: the first and the last gene of the panel.
    monkeypatch.setattr(module, "umap_coordinates", lambda x, seed: x[:, [0, -1]])
    zscore = np.random.default_rng(0).normal(size=(120, 40)).astype(np.float32)
    columns = ("method", "setting", "replicate", "panel")
    rows = pd.DataFrame(
        [
            ("random", "k=2", 0, [3, 7]),
            ("random", "k=2", 1, [9, 1]),
            ("random", "k=3", 1, [5, 6, 2]),
            ("smash", "k=2", 0, [0, 39]),
        ],
        columns=columns,
    )
    spec = ComparisonSpec(
        study="sweep",
        data=DataSpec(name="tiny"),
        methods=["random", "smash", "cosg"],
        n_markers=[2, 3],
    )
    drawn = panel_umaps(spec, rows, tiny_cells, zscore)
    assert list(drawn) == ["random", "smash"]

    def points(axes: Any) -> set[tuple[float, float]]:
        offsets = np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections])
        return {(float(x), float(y)) for x, y in offsets}

    def expected(first: int, last: int) -> set[tuple[float, float]]:
        return {(float(x), float(y)) for x, y in zscore[:, [first, last]]}

    maps = [axes for axes in drawn["random"].axes if axes.collections]
    assert [axes.get_title() for axes in maps] == ["k=2", "k=3"]
    assert [points(axes) for axes in maps] == [expected(3, 7), expected(5, 2)]
    (only,) = [axes for axes in drawn["smash"].axes if axes.collections]
    assert points(only) == expected(0, 39)


def test_no_finished_replicates_give_no_maps(tiny_cells: Cells) -> None:
    spec = ComparisonSpec(data=DataSpec(name="tiny"), methods=["random"])
    assert panel_umaps(spec, pd.DataFrame(), tiny_cells, np.zeros((120, 40), np.float32)) == {}
