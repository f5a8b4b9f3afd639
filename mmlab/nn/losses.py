"""Training objective of MarkerMap (Gregory et al. 2024, as in the authors' code)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from mmlab.nn.networks import Outputs


def gaussian_nll(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Return the negative log-likelihood of each cell under a diagonal Gaussian.

    It is summed over the genes, in nats. All arguments have shape (..., n_cells, n_genes); the
    result has shape (..., n_cells).
    """
    terms = math.log(2 * math.pi) + log_var + (x - mean).square() * (-log_var).exp()
    return 0.5 * terms.sum(dim=-1)


def kl_to_standard_normal(mu: Tensor, log_var: Tensor) -> Tensor:
    """Return KL( N(mu, exp(log_var)) || N(0, I) ) of each cell, summed over latents (nats)."""
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(dim=-1)


def markermap_loss(
    outputs: Outputs, x: Tensor, y: Tensor, *, alpha: float, kl_weight: float, per_gene: bool
) -> Tensor:
    """Return the mean over cells of ``alpha * R + (1 - alpha) * CE`` per model, (n_models,).

    CE is the cross-entropy of the labels. R is the Gaussian negative log-likelihood, summed over
    all genes, plus ``kl_weight`` times the KL term: thousands of nats, where CE is about one.
    With ``per_gene``, R is divided by the number of genes, so that R and CE are of the same
    order. Without it (as published) R dominates the joint loss.

    Parameters
    ----------
    outputs
        From :class:`mmlab.nn.networks.PanelVAE`.
    x
        Cells before masking, z-scores, shape (n_models, n_cells, n_genes).
    y
        Class indices, int64, shape (n_models, n_cells); not used if ``alpha`` is 1.
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
