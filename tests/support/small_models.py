"""Small models with each kind of gate, and simulated cells to train them on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmlab.nn.concrete_gate import ConcreteGate
from mmlab.nn.gates import CandidateGenes, FreeLogitsGate, Gate, MarkerMapGate
from mmlab.nn.layers import RandomSource
from mmlab.nn.networks import PanelModel, PanelVAE

N_CELLS, N_GENES, N_CLASSES, N_MODELS = 70, 15, 4, 3

#: Constructors of the gates: (candidate genes, one beta per model, random numbers) -> gate.
GATES = {
    "gene logits": lambda candidates, betas, noise: MarkerMapGate(candidates, 8, betas, noise),
    "free logits": lambda candidates, betas, noise: FreeLogitsGate(candidates, noise),
    "concrete": lambda candidates, betas, noise: ConcreteGate(candidates, noise),
    "random concrete": lambda candidates, betas, noise: ConcreteGate(candidates, noise, True),
}

#: Learning rate, beta, final temperature and patience of each model.
RATES, BETAS, FINAL, PATIENCE = [1e-2, 3e-3, 1e-2], [0.9, 0.5, 0.95], [0.1, 0.5, 1.0], [100, 2, 1]


def data(n_cells: int = N_CELLS) -> tuple[Tensor, Tensor]:
    """Return cells (n_models, n_cells, n_genes) and classes (n_models, n_cells).

    They differ between the models.
    """
    generator = torch.Generator().manual_seed(5)
    y = torch.randint(N_CLASSES, (N_MODELS, n_cells), generator=generator)
    x = torch.randn(N_MODELS, n_cells, N_GENES, generator=generator)
    return x.scatter_add(2, y[..., None], torch.full((N_MODELS, n_cells, 1), 3.0)), y


def build(models: list[int], gate: str, alpha: float) -> PanelModel:
    """Build the models with the given indices as one batch; ``gate`` is a key of ``GATES``."""
    noise = RandomSource([torch.Generator().manual_seed(10 + i) for i in models])
    genes = np.arange(N_GENES)
    candidates = CandidateGenes(N_GENES, 4, genes[[6]], np.delete(genes, [6, 9]))
    module: Gate = GATES[gate](candidates, [BETAS[i] for i in models], noise)
    return PanelModel(module, PanelVAE(module.n_inputs, N_GENES, N_CLASSES, 8, 5, alpha, noise))
