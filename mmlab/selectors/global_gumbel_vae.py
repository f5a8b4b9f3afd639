"""Global-Gumbel VAE: one trainable logit per gene, relaxed top-k (Gregory et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from mmlab.selectors.vae import VAESelector
from mmlab.selectors.vae_parameters import PublishedTraining

if TYPE_CHECKING:
    from mmlab.nn.gates import CandidateGenes, Gate
    from mmlab.nn.layers import RandomSource


class GlobalGumbelVAE(VAESelector):
    """Unsupervised MarkerMap whose logits are parameters, not the output of a network.

    There is one trainable logit per gene, drawn from N(0, 1). Gumbel noise and a relaxed top-k
    turn the logits into a soft mask of k genes, and a variational autoencoder learns to
    reconstruct all genes from the masked cells. The panel is the k genes with the largest
    logits, which are also the scores.

    Parameters
    ----------
    n_markers
        Size of the panel, k.
    hidden_size
        Width of all hidden layers, at least 1. ``auto`` is the published width for the number of
        genes: 64 below 1000 genes, 256 up to 4000, 500 above. ``half`` is half of that.
    initial_temperature, final_temperature
        Temperature of the relaxed top-k in the first epoch and after annealing, above 0. At a
        high temperature all genes are mixed, at a low one the mask is close to k genes.
    annealing_share
        Share of ``max_epochs``, in (0, 1], over which the temperature falls geometrically.
    learning_rate
        Learning rate of Adam, above 0. ``auto`` finds it with the published range test.
    batch_size
        Cells per training step, at least 2.
    max_epochs
        Largest number of epochs, at least 1.
    min_epochs
        First epoch after which training may stop early, at least 1. Training never stops early if
        this is not below ``max_epochs``, which is the default, or without validation cells.
    patience
        Training stops early after this many epochs without a better score of the panel on the
        validation cells, at least 1. The score is the share of variance that a linear regression
        on the panel explains.
    latent_size
        Dimensions of the latent space, at least 1.
    kl_weight
        Weight of the KL divergence in the reconstruction loss, not negative.
    faithful
        Train as in the published benchmark: learning rate from a range test up to 1e-5,
        temperature from 3, multiplied by 0.95 after every epoch, 25 to 100 epochs, early stopping
        on the validation loss, reconstruction loss summed over the genes. The logits then hardly
        change from their random initial values. The parameters that this fixes (temperatures,
        ``annealing_share``, ``learning_rate``, epochs and ``patience``) must keep their defaults.
    seed
        Seed of the initial weights and logits, batches and noise.
    device
        Device of torch, such as ``cpu`` or ``cuda``; ``auto`` is CUDA if available, else the CPU.

    References
    ----------
    Gregory et al., npj Syst Biol Appl 10:17 (2024). Xie & Ermon, IJCAI 2019 (relaxed top-k).
    """

    alpha: ClassVar[float] = 1.0
    published: ClassVar[PublishedTraining] = PublishedTraining(0.95, 1e-3, 1e-5, 10)
    supervised: ClassVar[bool] = False
    summary: ClassVar[str] = "unsupervised MarkerMap with one trainable logit per gene"
    reference: ClassVar[str] = "Gregory et al., npj Syst Biol Appl 2024"

    def __init__(
        self,
        n_markers: int = 50,
        *,
        hidden_size: int | Literal["auto", "half"] = "auto",
        initial_temperature: float = 3.0,
        final_temperature: float = 0.2,
        annealing_share: float = 0.6,
        learning_rate: float | Literal["auto"] = 3e-3,
        batch_size: int = 64,
        max_epochs: int = 60,
        min_epochs: int = 60,
        patience: int = 10,
        latent_size: int = 16,
        kl_weight: float = 0.1,
        faithful: bool = False,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_markers = n_markers
        self.hidden_size = hidden_size
        self.initial_temperature = initial_temperature
        self.final_temperature = final_temperature
        self.annealing_share = annealing_share
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.min_epochs = min_epochs
        self.patience = patience
        self.latent_size = latent_size
        self.kl_weight = kl_weight
        self.faithful = faithful
        self.seed = seed
        self.device = device

    def _make_gate(
        self, candidates: CandidateGenes, noise: RandomSource, selectors: Sequence[VAESelector]
    ) -> Gate:
        from mmlab.nn.gates import FreeLogitsGate

        return FreeLogitsGate(candidates, noise)
