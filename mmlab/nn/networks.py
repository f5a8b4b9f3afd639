"""What learns from the genes that a proposal shows: the network of MarkerMap and its kin."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mmlab.nn.gates import Gate, GateOutput
from mmlab.nn.layers import BatchNorm, Linear, RandomSource, hidden

#: Weights of a layer from which on rounding them costs less than it saves.
_WORTH_ROUNDING = 2**15


@dataclass(frozen=True)
class Outputs:
    """What a :class:`PanelVAE` gives for a batch; ``None`` for a part that has no weight.

    Shapes are (n_models, n_cells, latents, genes or classes).
    """

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
        noise: RandomSource,
    ) -> None:
        super().__init__()
        self.noise = noise
        self.first = Linear(n_inputs, hidden_size, noise)
        self.encoder = nn.Sequential(
            BatchNorm(hidden_size, noise),
            nn.LeakyReLU(),
            hidden(hidden_size, hidden_size, noise),
            hidden(hidden_size, hidden_size, noise, norm=False),
        )
        self.mu = Linear(hidden_size, latent_size, noise)
        self.log_var = Linear(hidden_size, latent_size, noise)

        def head(n_out: int) -> nn.Sequential:
            return nn.Sequential(
                hidden(latent_size, hidden_size, noise),
                Linear(hidden_size, n_out, noise),
            )

        self.decoder_mean = head(n_genes) if alpha > 0 else None
        self.decoder_log_var = head(n_genes) if alpha > 0 else None
        self.classifier = head(n_classes) if alpha < 1 else None

    def forward(self, gate_output: GateOutput) -> Outputs:
        """Outputs for what a proposal shows."""
        units = self.encoder(self.first(gate_output.cells, gate_output.mask, gate_output.inputs))
        mu, log_var = self.mu(units), self.log_var(units)
        x_mean = x_log_var = None
        if self.decoder_mean is not None and self.decoder_log_var is not None:
            z = mu
            if self.training:
                z = mu + (log_var / 2).exp() * self.noise.normal(*mu.shape[1:])
            x_mean, x_log_var = self.decoder_mean(z), self.decoder_log_var(z)
        class_logits = None if self.classifier is None else self.classifier(mu)
        return Outputs(mu, log_var, x_mean, x_log_var, class_logits)


class PanelModel(nn.Module):
    """A pack of panel proposals and the networks that learn from the genes that they show."""

    def __init__(self, gate: Gate, network: PanelVAE) -> None:
        super().__init__()
        self.gate = gate
        self.network = network

    def forward(self, x: Tensor, temperature: float | Tensor) -> Outputs:
        """Outputs for whole cells ``x`` of shape (n_models, n_cells, n_genes)."""
        outputs: Outputs = self.network(self.gate(x, temperature))
        return outputs

    def round_products(self) -> None:
        """Train with rounded products (:class:`mmlab.nn.layers.Linear`) where they take time."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.rounded = module.weight[0].numel() >= _WORTH_ROUNDING

    def panel(self, model: int = 0) -> NDArray[np.int64]:
        """Panel of a model: included genes, then the chosen ones, best first; (n_markers,)."""
        chosen, _ = self.gate.ranking(model)
        return np.concatenate([self.gate.candidates.include, chosen])

    def single(self, model: int) -> PanelModel:
        """One model of the pack, by itself: a copy of its weights and of its statistics."""
        n_models = len(self.gate.noise)
        alone = copy.deepcopy(self)
        noise = RandomSource([self.gate.noise.generators[model]])
        alone.gate.noise = alone.network.noise = noise
        alone.gate.candidates = self.gate.candidates.single(model)

        def part(values: Tensor) -> Tensor:
            # All tensors lie model by model; only the counters of batch norm have no axis.
            return values if values.dim() == 0 else values.chunk(n_models)[model].clone()

        for module in alone.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(part(parameter.detach())))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, part(buffer))
        return alone
