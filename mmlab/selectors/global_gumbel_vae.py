"""Global-Gumbel VAE: one free logit a gene, chosen by a relaxed top-k (Gregory et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from mmlab.selectors.vae import VAESelector

if TYPE_CHECKING:
    from mmlab.nn.gates import CandidateGenes, Gate
    from mmlab.nn.layers import RandomSource


class GlobalGumbelVAE(VAESelector):
    """Unsupervised MarkerMap without its logit network: the logits themselves are learned.

    The panel is the top-k of the logits, which are also the scores.

    Parameters
    ----------
    n_markers
        Size of the panel, k.
    hidden_size
        Width of all hidden layers; ``auto`` takes the published width for the number of genes:
        64 below 1000 genes, 256 up to 4000, 500 above; ``half`` takes half of that.
    initial_temperature, final_temperature
        Of the relaxed top-k in the first epoch, and once annealing has ended.
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
        Train as the published benchmark did: learning rate from a range test up to 1e-5,
        temperature from 3 multiplied by 0.95 after every epoch, 25 to 100 epochs, early
        stopping on the validation loss. The logits then hardly leave their random start.
    seed
        Of weights, logits, batches and noise.
    device
        ``cpu``, ``cuda``, ...; ``auto`` takes CUDA where there is one.

    References
    ----------
    Gregory et al., npj Syst Biol Appl 10:17 (2024). Xie & Ermon, IJCAI 2019 (relaxed top-k).
    """

    alpha: ClassVar[float] = 1.0
    published: ClassVar[tuple[float, float, float, int]] = (0.95, 1e-3, 1e-5, 10)
    supervised: ClassVar[bool] = False
    summary: ClassVar[str] = "unsupervised MarkerMap with one free logit a gene"
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
        self, candidates: CandidateGenes, noise: RandomSource, pack: Sequence[VAESelector]
    ) -> Gate:
        from mmlab.nn.gates import FreeLogitsGate

        return FreeLogitsGate(candidates, noise)
