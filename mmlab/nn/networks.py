"""What learns from the genes that a proposal shows: the network of MarkerMap and its kin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmlab.nn.layers import hidden, linear, masked_linear
from mmlab.nn.proposals import Proposal


@dataclass(frozen=True)
class Outputs:
    """What a :class:`PanelVAE` gives for a batch; ``None`` for a part that has no weight."""

    mu: Tensor
    log_var: Tensor
    x_mean: Tensor | None
    x_log_var: Tensor | None
    class_logits: Tensor | None


class PanelVAE(nn.Module):
    """Encoder, Gaussian decoder and classifier over cells of which only the panel is seen.

    Three hidden encoder layers (the third without batch norm), latent size ``latent_size``;
    mean and log-variance of the reconstruction come from two networks of their own; the
    classifier reads the latent mean, the decoder the latent sample (the mean at evaluation).
    The decoder is left out where ``alpha`` is 0, the classifier where it is 1.
    """

    def __init__(
        self,
        n_inputs: int,
        n_genes: int,
        n_classes: int,
        hidden_size: int,
        latent_size: int,
        alpha: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.first = linear(n_inputs, hidden_size, generator)
        self.encoder = nn.Sequential(
            nn.BatchNorm1d(hidden_size, device=generator.device),
            nn.LeakyReLU(),
            hidden(hidden_size, hidden_size, generator),
            hidden(hidden_size, hidden_size, generator, norm=False),
        )
        self.mu = linear(hidden_size, latent_size, generator)
        self.log_var = linear(hidden_size, latent_size, generator)

        def head(n_out: int) -> nn.Sequential:
            return nn.Sequential(
                hidden(latent_size, hidden_size, generator),
                linear(hidden_size, n_out, generator),
            )

        self.decoder_mean = head(n_genes) if alpha > 0 else None
        self.decoder_log_var = head(n_genes) if alpha > 0 else None
        self.classifier = head(n_classes) if alpha < 1 else None

    def forward(self, cells: Tensor, mask: Tensor | None = None) -> Outputs:
        """Outputs for what a proposal shows: ``cells`` (n_cells, n_inputs), times ``mask``."""
        first = self.first(cells) if mask is None else masked_linear(self.first, cells, mask)
        units = self.encoder(first)
        mu, log_var = self.mu(units), self.log_var(units)
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
    """A panel proposal and the network that learns from the genes that it shows."""

    def __init__(self, proposal: Proposal, network: PanelVAE) -> None:
        super().__init__()
        self.proposal = proposal
        self.network = network

    def forward(self, x: Tensor, temperature: float) -> Outputs:
        """Outputs for whole cells ``x`` of shape (n_cells, n_genes)."""
        shown = self.proposal(x, temperature)
        outputs: Outputs = self.network(shown.cells, shown.mask)
        return outputs

    def panel(self) -> NDArray[np.int64]:
        """The panel: included genes, then the chosen ones, best first; shape (n_markers,)."""
        chosen, _ = self.proposal.ranking()
        return np.concatenate([self.proposal.choice.include, chosen])
