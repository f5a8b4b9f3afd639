"""MarkerMap: a panel and a network that uses it, trained together (Gregory et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from mmlab.selectors.quick_training import QuickTraining
from mmlab.selectors.vae import VAESelector
from mmlab.selectors.vae_parameters import PublishedTraining, hidden_width

if TYPE_CHECKING:
    from mmlab.nn.gates import CandidateGenes, Gate
    from mmlab.nn.layers import RandomSource


class MarkerMap(VAESelector):
    """MarkerMap learns a panel and a network that uses it together.

    In each training step a network f proposes one logit per gene, and the running logits L are
    updated with the mean of the batch: ``L <- beta L + (1 - beta) mean f(x)``. Gumbel noise and a
    relaxed top-k turn L into a soft mask of k genes. A variational autoencoder with a classifier
    head learns from the masked cells. The panel is the k genes with the largest L; L is also the
    score of the genes.

    The three modes differ in the loss: the supervised one learns to classify the cell types, the
    unsupervised one to reconstruct all genes without labels, the joint one both. The
    weight alpha of the reconstruction loss is 0, 1 and 0.5. This loss is a mean over the genes,
    so that in the joint mode it has a size similar to that of the classification loss.

    By default training does not stop early: the validation score is noisy, and panels still
    improve while it looks flat.

    ``--quick`` is a training with a budget of steps instead of epochs: at least 400 steps of 128
    cells, with a higher learning rate and, unless unsupervised, half the width. It changes nothing
    where that is more than half of the default steps: up to 833 training cells (1190 cells in all).
    :func:`mmlab.selectors.quick_params` returns its parameters. On validation cells of four
    datasets with 7 to 47 types, supervised, it took 6 to 15 % of the default's time. The kNN
    accuracy changed by -0.01 to 0.00 and, with 47 types, by -0.04; the balanced accuracy, in which
    rare types count as much as frequent ones, by -0.04 to +0.01. Unsupervised, on one of them, it
    took 23 % of the time and both changed by -0.02 (``experiments/quick_budget.py``).

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
    beta
        Weight of the old logits when the running logits are updated, in [0, 1).
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
        validation cells, at least 1. The score is the accuracy of a 5-nearest-neighbour
        classifier in the supervised and joint modes, and the share of variance that a linear
        regression on the panel explains in the unsupervised mode.
    latent_size
        Dimensions of the latent space, at least 1.
    kl_weight
        Weight of the KL divergence in the reconstruction loss, not negative. The supervised mode
        does not use it.
    precision
        ``float32``, or ``mixed``: large matrix products are computed with bfloat16 factors during
        training if the device is faster with these.
    faithful
        Train as in the published benchmark: learning rate from a range test up to 1e-3
        (supervised) or 1e-4 (others), temperature from 3, multiplied by 0.95 after every epoch,
        25 to 100 epochs, early stopping on the validation loss. The reconstruction loss is summed
        over the genes, which in the joint mode outweighs the classification loss. The parameters
        that this fixes (temperatures, ``annealing_share``, ``learning_rate``, epochs and
        ``patience``) must keep their defaults.
    seed
        Seed of the initial weights, batches, dropout and noise.
    device
        Device of torch, such as ``cpu`` or ``cuda``; ``auto`` is CUDA if available, else the CPU.

    References
    ----------
    Gregory et al., npj Syst Biol Appl 10:17 (2024). Xie & Ermon, IJCAI 2019 (relaxed top-k).
    """

    #: Fewer steps than by default, with larger batches and a higher learning rate.
    quick: ClassVar[QuickTraining] = QuickTraining(
        steps=400,
        min_epochs=7,
        batch_size=128,
        params={
            "hidden_size": "half",
            "learning_rate": 3e-3,
            "annealing_share": 0.8,
            "precision": "mixed",
        },
    )
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
        self, candidates: CandidateGenes, noise: RandomSource, selectors: Sequence[VAESelector]
    ) -> Gate:
        from mmlab.nn.gates import MarkerMapGate

        betas = [selector.get_params()["beta"] for selector in selectors]
        width = hidden_width(self.hidden_size, candidates.n_genes)
        return MarkerMapGate(candidates, width, betas, noise)

    def _own_parameter_problems(self) -> list[str]:
        problems = []
        if not 0 <= self.beta < 1:
            problems.append(f"beta is {self.beta}, but must be in [0, 1)")
        if self.precision not in ("float32", "mixed"):
            problems.append(f"precision is {self.precision!r}, but must be float32 or mixed")
        return problems


class MarkerMapSupervised(MarkerMap):
    """MarkerMap trained to classify cell types (alpha = 0); see :class:`MarkerMap`."""

    alpha: ClassVar[float] = 0.0
    #: At twice this learning rate, the rarest of many types have fewer markers.
    quick: ClassVar[QuickTraining] = replace(
        MarkerMap.quick, params={**MarkerMap.quick.params, "learning_rate": 1.5e-3}
    )
    published: ClassVar[PublishedTraining] = PublishedTraining(0.95, 1e-4, 1e-3, 3)
    summary: ClassVar[str] = "MarkerMap trained to classify cell types"


class MarkerMapUnsupervised(MarkerMap):
    """MarkerMap trained to reconstruct all genes (alpha = 1); see :class:`MarkerMap`."""

    alpha: ClassVar[float] = 1.0
    published: ClassVar[PublishedTraining] = PublishedTraining(0.95, 1e-4, 1e-4, 4)
    supervised: ClassVar[bool] = False
    #: Reconstruction needs a wider network and more epochs than classification.
    quick: ClassVar[QuickTraining] = replace(
        MarkerMap.quick,
        min_epochs=9,
        params={**MarkerMap.quick.params, "hidden_size": "auto", "final_temperature": 0.3},
    )
    summary: ClassVar[str] = "MarkerMap trained to reconstruct all genes, without labels"


class MarkerMapJoint(MarkerMap):
    """MarkerMap trained on both tasks (alpha = 0.5); see :class:`MarkerMap`."""

    alpha: ClassVar[float] = 0.5
    published: ClassVar[PublishedTraining] = PublishedTraining(0.95, 1e-4, 1e-4, 3)
    summary: ClassVar[str] = "MarkerMap trained to classify cell types and to reconstruct all genes"
