"""The networks of MarkerMap: who proposes the panel, and what learns from the masked cells.

Every random number (weights, dropout, Gumbel noise, latent sample) comes from one explicit
``torch.Generator``, so that a model neither reads nor moves torch's global generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mmlab.nn.subset import gumbel_noise, relaxed_top_k, top_k_mask


def _linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """``nn.Linear`` with torch's default initialisation, drawn from ``generator``."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out, device=generator.device)
    bound = 1 / math.sqrt(n_in)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def _hidden(n_in: int, n_out: int, generator: torch.Generator, norm: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [_linear(n_in, n_out, generator)]
    if norm:
        layers.append(nn.BatchNorm1d(n_out, device=generator.device))
    layers.append(nn.LeakyReLU())
    return nn.Sequential(*layers)


class GeneLogits(nn.Module):
    """MarkerMap's panel proposal: a network whose batch mean moves one running logit a gene.

    Per batch ``L <- beta * stopgrad(L) + (1 - beta) * mean_batch f(x)`` (METHODS: Gregory et
    al. 2024, "MarkerMap"), then one Gumbel draw shared by the batch and a relaxed top-k of
    ``L + noise``. At evaluation the mask is the hard top-k of ``L``.

    The logits are used as a batch mean alone, and the last layer of ``f`` is linear, so that
    layer is applied to the mean of the hidden units: the same number for 1/batch of the work.
    """

    def __init__(
        self,
        n_genes: int,
        n_markers: int,
        hidden_size: int,
        beta: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_markers = n_markers
        self.beta = beta
        self.generator = generator
        self.first = _hidden(n_genes, hidden_size, generator)
        self.second = _hidden(hidden_size, hidden_size, generator)
        self.last = _linear(hidden_size, n_genes, generator)
        self.logits: Tensor
        self.register_buffer("logits", torch.zeros(n_genes, device=generator.device))

    def forward(self, x: Tensor, temperature: float) -> Tensor:
        """Mask of shape (n_genes,) for the batch ``x`` of shape (n_cells, n_genes)."""
        if not self.training:
            return top_k_mask(self.logits, self.n_markers)
        hidden = self.first(x)
        keep = torch.empty_like(hidden).bernoulli_(0.5, generator=self.generator)
        hidden = functional.leaky_relu(self.second(hidden * keep * 2))
        proposal = self.last(hidden.mean(dim=0))
        logits = self.beta * self.logits + (1 - self.beta) * proposal
        self.logits = logits.detach()
        keys = logits + gumbel_noise(logits, self.generator)
        return relaxed_top_k(keys, self.n_markers, temperature)


@dataclass(frozen=True)
class Outputs:
    """What a :class:`MaskedVAE` gives for a batch; ``None`` for a part that has no weight."""

    mu: Tensor
    log_var: Tensor
    x_mean: Tensor | None
    x_log_var: Tensor | None
    class_logits: Tensor | None


class MaskedVAE(nn.Module):
    """Encoder, Gaussian decoder and classifier over cells of which only the panel is seen.

    Three hidden encoder layers (the third without batch norm), latent size ``latent_size``;
    mean and log-variance of the reconstruction come from two networks of their own; the
    classifier reads the latent mean, the decoder the latent sample (the mean at evaluation).
    The decoder is left out where ``alpha`` is 0, the classifier where it is 1.
    """

    def __init__(
        self,
        n_genes: int,
        n_classes: int,
        hidden_size: int,
        latent_size: int,
        alpha: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.encoder = nn.Sequential(
            _hidden(n_genes, hidden_size, generator),
            _hidden(hidden_size, hidden_size, generator),
            _hidden(hidden_size, hidden_size, generator, norm=False),
        )
        self.mu = _linear(hidden_size, latent_size, generator)
        self.log_var = _linear(hidden_size, latent_size, generator)

        def head(n_out: int) -> nn.Sequential:
            return nn.Sequential(
                _hidden(latent_size, hidden_size, generator),
                _linear(hidden_size, n_out, generator),
            )

        self.decoder_mean = head(n_genes) if alpha > 0 else None
        self.decoder_log_var = head(n_genes) if alpha > 0 else None
        self.classifier = head(n_classes) if alpha < 1 else None

    def forward(self, x: Tensor) -> Outputs:
        """Outputs for masked cells ``x`` of shape (n_cells, n_genes)."""
        hidden = self.encoder(x)
        mu, log_var = self.mu(hidden), self.log_var(hidden)
        x_mean = x_log_var = None
        if self.decoder_mean is not None and self.decoder_log_var is not None:
            z = mu
            if self.training:
                noise = torch.empty_like(mu).normal_(generator=self.generator)
                z = mu + (log_var / 2).exp() * noise
            x_mean, x_log_var = self.decoder_mean(z), self.decoder_log_var(z)
        class_logits = None if self.classifier is None else self.classifier(mu)
        return Outputs(mu, log_var, x_mean, x_log_var, class_logits)


class PanelModel(nn.Module):
    """A panel proposal and the network that learns from the cells it masks."""

    def __init__(self, proposal: GeneLogits, network: MaskedVAE) -> None:
        super().__init__()
        self.proposal = proposal
        self.network = network

    def forward(self, x: Tensor, temperature: float) -> Outputs:
        """Outputs for whole cells ``x``: the proposal masks them, the network sees the rest."""
        outputs: Outputs = self.network(x * self.proposal(x, temperature))
        return outputs

    def panel(self) -> NDArray[np.int64]:
        """The genes with the largest logits, best first, shape (n_markers,)."""
        logits = self.proposal.logits
        ranked = torch.argsort(logits, descending=True, stable=True)[: self.proposal.n_markers]
        return ranked.cpu().numpy().astype(np.int64)
