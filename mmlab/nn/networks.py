"""The variational autoencoder behind a gate, and the model that combines the two."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mmlab.nn.gates import Gate, GateOutput
from mmlab.nn.layers import BatchNorm, Linear, RandomSource, hidden_layer

#: Smallest number of weights of a layer (per model) for which bfloat16 saves time.
_MIN_WEIGHTS_FOR_BFLOAT16 = 2**15


@dataclass(frozen=True)
class Outputs:
    """Outputs of a :class:`PanelVAE` for a minibatch; None for heads that it does not have.

    The shapes are (n_models, n_cells, n_latents) for ``mu`` and ``log_var``, (n_models, n_cells,
    n_genes) for ``x_mean`` and ``x_log_var``, (n_models, n_cells, n_classes) for
    ``class_logits``.
    """

    mu: Tensor
    log_var: Tensor
    x_mean: Tensor | None
    x_log_var: Tensor | None
    class_logits: Tensor | None


class PanelVAE(nn.Module):
    """Variational autoencoder with a classifier; its input is the output of a gate.

    The encoder has three hidden layers (the third without batch norm) and ``latent_size`` latent
    variables. Two separate decoder networks predict the mean and the log-variance of the
    expression of all genes. The input of the classifier is the latent mean; the input of the
    decoders is a latent sample in training mode and the latent mean in evaluation mode. There
    are no decoders if ``alpha`` is 0, and no classifier if ``alpha`` is 1.
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
            hidden_layer(hidden_size, hidden_size, noise),
            hidden_layer(hidden_size, hidden_size, noise, norm=False),
        )
        self.mu = Linear(hidden_size, latent_size, noise)
        self.log_var = Linear(hidden_size, latent_size, noise)

        def head(n_out: int) -> nn.Sequential:
            return nn.Sequential(
                hidden_layer(latent_size, hidden_size, noise),
                Linear(hidden_size, n_out, noise),
            )

        self.decoder_mean = head(n_genes) if alpha > 0 else None
        self.decoder_log_var = head(n_genes) if alpha > 0 else None
        self.classifier = head(n_classes) if alpha < 1 else None

    def forward(self, gate_output: GateOutput) -> Outputs:
        """Return the outputs for the cells that a gate passes on."""
        hidden = self.encoder(self.first(gate_output.cells, gate_output.mask, gate_output.inputs))
        mu, log_var = self.mu(hidden), self.log_var(hidden)
        x_mean = x_log_var = None
        if self.decoder_mean is not None and self.decoder_log_var is not None:
            z = mu
            if self.training:
                z = mu + (log_var / 2).exp() * self.noise.normal(*mu.shape[1:])
            x_mean, x_log_var = self.decoder_mean(z), self.decoder_log_var(z)
        class_logits = None if self.classifier is None else self.classifier(mu)
        return Outputs(mu, log_var, x_mean, x_log_var, class_logits)


class PanelModel(nn.Module):
    """Gate and network of one or more models that are trained as one batch."""

    def __init__(self, gate: Gate, network: PanelVAE) -> None:
        super().__init__()
        self.gate = gate
        self.network = network

    def forward(self, x: Tensor, temperature: float | Tensor) -> Outputs:
        """Return the outputs for cells ``x`` with all genes, (n_models, n_cells, n_genes)."""
        outputs: Outputs = self.network(self.gate(x, temperature))
        return outputs

    def use_mixed_precision(self) -> None:
        """Use bfloat16 products (:class:`mmlab.nn.layers.Linear`) in the large linear layers."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.mixed_precision = module.weight[0].numel() >= _MIN_WEIGHTS_FOR_BFLOAT16

    def panel(self, model: int = 0) -> NDArray[np.int64]:
        """Return the panel of a model, shape (n_markers,).

        The included genes come first, followed by the chosen genes, best first.
        """
        chosen, _ = self.gate.ranking(model)
        return np.concatenate([self.gate.candidates.include, chosen])

    def single(self, model: int) -> PanelModel:
        """Return one model of the batch with a copy of its weights and batch-norm statistics."""
        n_models = len(self.gate.noise)

        def select(values: Tensor) -> Tensor:
            # The model axis comes first; only num_batches_tracked of batch norm has no axis.
            return (values if values.dim() == 0 else values.chunk(n_models)[model]).clone()

        # With these copies in its memo, deepcopy does not copy the weights of the other models.
        copies: dict[int, Any] = {
            id(p): nn.Parameter(select(p.detach())) for p in self.parameters()
        }
        copies |= {id(buffer): select(buffer) for buffer in self.buffers()}
        single = copy.deepcopy(self, copies)
        noise = RandomSource([self.gate.noise.generators[model]])
        single.gate.noise = single.network.noise = noise
        single.gate.candidates = self.gate.candidates.single(model)
        return single
