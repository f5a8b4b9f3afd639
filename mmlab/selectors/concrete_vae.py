"""Concrete autoencoder: k concrete distributions over the genes (Balin et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from mmlab.selectors.vae import VAESelector

if TYPE_CHECKING:
    from mmlab.nn.gates import CandidateGenes, Gate
    from mmlab.nn.layers import RandomSource


class ConcreteVAE(VAESelector):
    """A variational autoencoder whose k inputs are k concrete selectors, without labels.

    Each selector is a softmax over the genes with Gumbel noise, which the falling temperature
    hardens into one gene (:class:`mmlab.nn.concrete_gate.ConcreteGate`). The score of a gene
    is the largest weight that any selector gives it.

    Parameters
    ----------
    n_markers
        Size of the panel, k: the number of selectors.
    hidden_size
        Width of all hidden layers; ``auto`` takes the published width for the number of genes:
        64 below 1000 genes, 256 up to 4000, 500 above; ``half`` takes half of that.
    initial_temperature, final_temperature
        Of the selectors in the first epoch, and once annealing has ended.
    annealing_share
        Share of ``max_epochs``, in (0, 1], over which the temperature falls.
    learning_rate
        Of Adam; ``auto`` finds it by the published range test.
    batch_size
        Cells a step.
    max_epochs, min_epochs, patience
        Budget and early stopping, on the variance that the hard panel explains.
    latent_size
        Of the autoencoder.
    kl_weight
        Of the KL term of the autoencoder.
    faithful
        Train as the benchmark of Gregory et al. did: learning rate from a range test up to
        1e-4, temperature from 3 multiplied by 0.99 after every epoch, 25 to 100 epochs, early
        stopping on the validation loss; and read the panel from one more random draw. The
        temperature then never falls below 1 and the panel is close to random.
    seed
        Of weights, batches and noise.
    device
        ``cpu``, ``cuda``, ...; ``auto`` takes CUDA where there is one.

    References
    ----------
    Balin et al., ICML 2019. Maddison et al., ICLR 2017 (concrete distribution).
    """

    alpha: ClassVar[float] = 1.0
    published: ClassVar[tuple[float, float, float, int]] = (0.99, 1e-4, 1e-4, 3)
    supervised: ClassVar[bool] = False
    summary: ClassVar[str] = "autoencoder with k concrete selectors, without labels"
    reference: ClassVar[str] = "Balin et al., ICML 2019"

    def __init__(
        self,
        n_markers: int = 50,
        *,
        hidden_size: int | Literal["auto", "half"] = "auto",
        initial_temperature: float = 10.0,
        final_temperature: float = 0.01,
        annealing_share: float = 1.0,
        learning_rate: float | Literal["auto"] = 1e-3,
        batch_size: int = 64,
        max_epochs: int = 100,
        min_epochs: int = 100,
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
        self, candidates: CandidateGenes, noise: RandomSource, pack: Sequence[VAESelector]
    ) -> Gate:
        from mmlab.nn.concrete_gate import ConcreteGate

        return ConcreteGate(candidates, noise, random_panel=self.faithful)
