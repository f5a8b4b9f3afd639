"""MarkerMap: a panel learned together with the network that uses it (Gregory et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from mmlab.selectors.vae import VAESelector
from mmlab.spec.base import Scalar

if TYPE_CHECKING:
    from mmlab.nn.gates import CandidateGenes, Gate
    from mmlab.nn.layers import RandomSource


class MarkerMap(VAESelector):
    """Base of the three modes; they differ in ``alpha``, the weight of the reconstruction.

    A network proposes gene logits, a relaxed top-k masks the cells, and a variational
    autoencoder with a classifier head learns from what is left; see
    :mod:`mmlab.nn.gates`. The panel is the top-k of the running logits, which are also the
    scores.

    Training runs ``max_epochs`` epochs; over the first ``annealing_share`` of them the
    temperature falls geometrically from the initial to the final one. With validation cells
    it can end earlier, from ``min_epochs`` on, once the score of the hard panel has not risen
    for ``patience`` epochs. That score is the 5-nearest-neighbour accuracy where labels are
    used, else the share of variance that a linear regression on the panel explains. By default
    it never ends early: the score is noisy, and panels go on improving while it looks flat.

    ``quick`` holds the parameters of a training that is done after a fifteenth of the steps: fewer
    epochs, larger batches, a higher learning rate, narrower layers:
    ``MarkerMapSupervised(50, **MarkerMapSupervised.quick)``.

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
    beta
        Weight of the old running logits, in [0, 1).
    learning_rate
        Of Adam; ``auto`` finds it by the published range test.
    batch_size
        Cells a step.
    max_epochs, min_epochs, patience
        Budget and early stopping.
    latent_size
        Of the autoencoder.
    kl_weight
        Of the KL term of the autoencoder.
    precision
        ``mixed`` rounds the factors of the large matrix products to bfloat16 while training, if
        the device is faster with these; ``float32`` does not.
    faithful
        Train as the published benchmark did: learning rate from a range test, temperature
        multiplied by 0.95 after every epoch, 25 to 100 epochs, early stopping on the
        validation loss; and in the joint mode the reconstruction loss summed over the genes,
        which drowns the labels, instead of its mean.
    seed
        Of weights, batches, dropout and noise.
    device
        ``cpu``, ``cuda``, ...; ``auto`` takes CUDA where there is one.

    References
    ----------
    Gregory et al., npj Syst Biol Appl 10:17 (2024). Xie & Ermon, IJCAI 2019 (relaxed top-k).
    """

    #: A fifteenth of the steps of the default training, each ten times as long.
    quick: ClassVar[dict[str, Scalar]] = {
        "hidden_size": "half",
        "max_epochs": 7,
        "min_epochs": 7,
        "batch_size": 128,
        "learning_rate": 3e-3,
        "annealing_share": 0.8,
        "precision": "mixed",
    }
    reference: ClassVar[str] = "Gregory et al., npj Syst Biol Appl 2024"

    def __init__(
        self,
        n_markers: int = 50,
        *,
        hidden_size: int | Literal["auto", "half"] = "auto",
        initial_temperature: float = 3.0,
        final_temperature: float = 0.6,
        annealing_share: float = 0.6,
        beta: float = 0.95,
        learning_rate: float | Literal["auto"] = 3e-4,
        batch_size: int = 64,
        max_epochs: int = 60,
        min_epochs: int = 60,
        patience: int = 10,
        latent_size: int = 16,
        kl_weight: float = 0.1,
        precision: Literal["float32", "mixed"] = "float32",
        faithful: bool = False,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_markers = n_markers
        self.hidden_size = hidden_size
        self.initial_temperature = initial_temperature
        self.final_temperature = final_temperature
        self.annealing_share = annealing_share
        self.beta = beta
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.min_epochs = min_epochs
        self.patience = patience
        self.latent_size = latent_size
        self.kl_weight = kl_weight
        self.precision = precision
        self.faithful = faithful
        self.seed = seed
        self.device = device

    def _make_gate(
        self, candidates: CandidateGenes, noise: RandomSource, pack: Sequence[VAESelector]
    ) -> Gate:
        from mmlab.nn.gates import MarkerMapGate

        betas = [selector.get_params()["beta"] for selector in pack]
        return MarkerMapGate(candidates, self._width(candidates.n_genes), betas, noise)

    def _more_problems(self) -> list[str]:
        problems = []
        if not 0 <= self.beta < 1:
            problems.append(f"beta is {self.beta}, but must be in [0, 1)")
        if self.precision not in ("float32", "mixed"):
            problems.append(f"precision is {self.precision!r}, but must be float32 or mixed")
        return problems


class MarkerMapSupervised(MarkerMap):
    """MarkerMap that learns to tell the types apart (alpha 0); see :class:`MarkerMap`."""

    alpha: ClassVar[float] = 0.0
    published: ClassVar[tuple[float, float, float, int]] = (0.95, 1e-4, 1e-3, 3)
    summary: ClassVar[str] = "MarkerMap that learns to tell the types apart"


class MarkerMapUnsupervised(MarkerMap):
    """MarkerMap that learns to reconstruct all genes (alpha 1); see :class:`MarkerMap`."""

    alpha: ClassVar[float] = 1.0
    published: ClassVar[tuple[float, float, float, int]] = (0.95, 1e-4, 1e-4, 4)
    supervised: ClassVar[bool] = False
    #: Telling all genes needs more of the network, and of the training, than telling the types.
    quick: ClassVar[dict[str, Scalar]] = MarkerMap.quick | {
        "hidden_size": "auto",
        "max_epochs": 9,
        "min_epochs": 9,
        "final_temperature": 0.3,
    }
    summary: ClassVar[str] = "MarkerMap that learns to reconstruct all genes, without labels"


class MarkerMapJoint(MarkerMap):
    """MarkerMap that learns both at once (alpha 0.5); see :class:`MarkerMap`."""

    alpha: ClassVar[float] = 0.5
    published: ClassVar[tuple[float, float, float, int]] = (0.95, 1e-4, 1e-4, 3)
    summary: ClassVar[str] = "MarkerMap that learns both at once, losses of one size"
