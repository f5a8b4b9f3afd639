"""Synthetic cells, and selectors and models to train on them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmlab.nn.concrete_gate import ConcreteGate
from mmlab.nn.gates import CandidateGenes, FreeLogitsGate, Gate, MarkerMapGate
from mmlab.nn.layers import RandomSource
from mmlab.nn.networks import PanelModel, PanelVAE
from mmlab.selectors import get_selector
from mmlab.selectors.training_data import TrainingData

Cells = tuple[NDArray[np.float32], NDArray[np.int64]]

#: Types of gate that :func:`build_model` makes.
GATES = ("MarkerMap", "free logits", "concrete", "concrete with a random panel")


def synthetic_cells(
    n_cells: int, n_genes: int, n_types: int, *, strength: float = 1.0, markers_per_type: int = 10
) -> Cells:
    """Return normal z-scores (n_cells, n_genes) and classes (n_cells,).

    The first ``n_types * markers_per_type`` genes are markers: each is higher by ``strength`` in
    its own type.
    """
    rng = np.random.default_rng(0)
    y = rng.integers(n_types, size=n_cells)
    x = rng.standard_normal((n_cells, n_genes), dtype=np.float32)
    for cell_type in range(n_types):
        first = markers_per_type * cell_type
        x[y == cell_type, first : first + markers_per_type] += strength
    return x, y


def make_selectors(
    method: str, n_models: int, device: str, train: Cells, validation: Cells, k: int, **params: Any
) -> tuple[list[Any], list[TrainingData]]:
    """Return selectors that differ in their seed (0, 1, ...), and the same data for each."""
    first: Any = get_selector(method)(k, device=device, seed=0, **params)
    data = first.check_data(*train, X_val=validation[0], y_val=validation[1])
    selectors = []
    for seed in range(n_models):
        selector = copy.copy(first)
        selector.seed = seed
        selectors.append(selector)
    return selectors, [data] * n_models


def build_model(
    device: str,
    n_models: int,
    gate_type: str,
    alpha: float,
    *,
    n_genes: int,
    hidden_size: int,
    n_markers: int,
    n_classes: int = 5,
    include: Sequence[int] = (),
    exclude: Sequence[int] = (),
    rounded: bool = False,
) -> PanelModel:
    """Return an untrained batch of models with a gate of one of the types in ``GATES``.

    ``rounded`` models round the factors of their large products to bfloat16 while they train.
    """
    seeds = range(10, 10 + n_models)
    noise = RandomSource([torch.Generator(device=device).manual_seed(seed) for seed in seeds])
    free = np.setdiff1d(np.arange(n_genes), [*include, *exclude])
    candidates = CandidateGenes(n_genes, n_markers, np.array(include, dtype=np.int64), free)
    gate: Gate
    if gate_type == "MarkerMap":
        gate = MarkerMapGate(candidates, hidden_size, [0.95] * n_models, noise)
    elif gate_type == "free logits":
        gate = FreeLogitsGate(candidates, noise)
    else:
        gate = ConcreteGate(candidates, noise, random_panel=gate_type != "concrete")
    network = PanelVAE(gate.n_inputs, n_genes, n_classes, hidden_size, 16, alpha, noise)
    model = PanelModel(gate, network)
    if rounded:
        model.use_mixed_precision()
    return model


def n_true_markers(selectors: Sequence[Any], n_markers: int) -> list[int]:
    """Return how many of the first ``n_markers`` genes are in each selector's panel."""
    return [int((selector.panel_ < n_markers).sum()) for selector in selectors]
