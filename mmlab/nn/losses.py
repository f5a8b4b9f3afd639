"""The training objective of MarkerMap (METHODS: Gregory et al. 2024, as its code has it)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from mmlab.nn.networks import Outputs


def gaussian_nll(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Negative log-likelihood of each cell under a diagonal Gaussian, summed over genes (nats).

    All arguments have shape (..., n_cells, n_genes); the result has shape (..., n_cells).
    """
    terms = math.log(2 * math.pi) + log_var + (x - mean).square() * (-log_var).exp()
    return 0.5 * terms.sum(dim=-1)


def kl_to_standard_normal(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL( N(mu, exp(log_var)) || N(0, I) ) of each cell, summed over latents (nats)."""
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(dim=-1)


def markermap_loss(
    outputs: Outputs, x: Tensor, y: Tensor, *, alpha: float, kl_weight: float, per_gene: bool
) -> Tensor:
    """Mean over cells of ``alpha * R + (1 - alpha) * CE``, one a model; shape (n_models,).

    R is the Gaussian negative log-likelihood of the whole cell plus ``kl_weight`` times the KL
    term, both summed: thousands of nats where the cross-entropy CE is about one. With
    ``per_gene`` R is divided by the number of genes, so that the two are of one size; without
    (as published) the joint loss is that of the reconstruction in all but name.

    Parameters
    ----------
    outputs
        From :class:`mmlab.nn.networks.PanelVAE`.
    x
        Cells before masking, shape (n_models, n_cells, n_genes), z-scores.
    y
        Class indices, shape (n_models, n_cells), int64; not read where ``alpha`` is 1.
    """
    loss = x.new_zeros(len(x))
    if outputs.class_logits is not None:
        logits = outputs.class_logits.transpose(1, 2)
        entropy = functional.cross_entropy(logits, y, reduction="none")
        loss = loss + (1 - alpha) * entropy.mean(dim=1)
    if outputs.x_mean is not None and outputs.x_log_var is not None:
        reconstruction = gaussian_nll(x, outputs.x_mean, outputs.x_log_var)
        kl = kl_to_standard_normal(outputs.mu, outputs.log_var)
        scale = alpha / x.shape[-1] if per_gene else alpha
        loss = loss + scale * (reconstruction + kl_weight * kl).mean(dim=1)
    return loss
