"""Small models of every kind, and cells for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmlab.nn.concrete_gate import ConcreteGate
from mmlab.nn.gates import CandidateGenes, FreeLogitsGate, Gate, MarkerMapGate
from mmlab.nn.layers import RandomSource
from mmlab.nn.networks import PanelModel, PanelVAE

N_CELLS, N_GENES, N_CLASSES, N_MODELS = 70, 15, 4, 3


GATES = {
    "gene logits": lambda candidates, betas, noise: MarkerMapGate(candidates, 8, betas, noise),
    "free logits": lambda candidates, betas, noise: FreeLogitsGate(candidates, noise),
    "concrete": lambda candidates, betas, noise: ConcreteGate(candidates, noise),
    "random concrete": lambda candidates, betas, noise: ConcreteGate(candidates, noise, True),
}


RATES, BETAS, FINAL, PATIENCE = [1e-2, 3e-3, 1e-2], [0.9, 0.5, 0.95], [0.1, 0.5, 1.0], [100, 2, 1]


def data(n_cells: int = N_CELLS) -> tuple[Tensor, Tensor]:
    """Cells and classes of every model, each its own."""
    generator = torch.Generator().manual_seed(5)
    y = torch.randint(N_CLASSES, (N_MODELS, n_cells), generator=generator)
    x = torch.randn(N_MODELS, n_cells, N_GENES, generator=generator)
    return x.scatter_add(2, y[..., None], torch.full((N_MODELS, n_cells, 1), 3.0)), y


def build(members: list[int], gate: str, alpha: float) -> PanelModel:
    noise = RandomSource([torch.Generator().manual_seed(10 + i) for i in members])
    genes = np.arange(N_GENES)
    candidates = CandidateGenes(N_GENES, 4, genes[[6]], np.delete(genes, [6, 9]))
    shown: Gate = GATES[gate](candidates, [BETAS[i] for i in members], noise)
    return PanelModel(shown, PanelVAE(shown.n_inputs, N_GENES, N_CLASSES, 8, 5, alpha, noise))
