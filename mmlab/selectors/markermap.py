"""MarkerMap: a panel learned together with the network that uses it (Gregory et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.validation import check_is_fitted

from mmlab.errors import UserError
from mmlab.metrics.classification import accuracy
from mmlab.metrics.reconstruction import explained_variance, linear_reconstruction
from mmlab.selectors.base import Selector

if TYPE_CHECKING:
    from torch import Tensor

    from mmlab.nn.networks import PanelModel
    from mmlab.nn.training import Epoch


class MarkerMap(Selector):
    """Base of the three modes; they differ in ``alpha``, the weight of the reconstruction.

    A network proposes gene logits, a relaxed top-k masks the cells, and a variational
    autoencoder with a classifier head learns from what is left; see
    :mod:`mmlab.nn.networks`. The panel is the top-k of the running logits, which are also the
    scores.

    Training runs ``max_epochs`` epochs; over the first ``annealing_share`` of them the
    temperature falls geometrically from the initial to the final one. With validation cells
    it can end earlier, from ``min_epochs`` on, once the score of the hard panel has not risen
    for ``patience`` epochs. That score is the 5-nearest-neighbour accuracy where labels are
    used, else the share of variance that a linear regression on the panel explains. By default
    it never ends early: the score is noisy, and panels go on improving while it looks flat.

    Parameters
    ----------
    n_markers
        Size of the panel, k.
    hidden_size
        Width of all hidden layers.
    initial_temperature, final_temperature
        Of the relaxed top-k in the first epoch, and once annealing has ended.
    annealing_share
        Share of ``max_epochs``, in (0, 1], over which the temperature falls.
    beta
        Weight of the old running logits, in [0, 1).
    learning_rate
        Of Adam.
    batch_size
        Cells a step.
    max_epochs, min_epochs, patience
        Budget and early stopping.
    latent_size
        Of the autoencoder.
    kl_weight
        Of the KL term of the autoencoder.
    seed
        Of weights, batches, dropout and noise.
    device
        ``cpu``, ``cuda``, ...; ``auto`` takes CUDA where there is one.

    References
    ----------
    Gregory et al., npj Syst Biol Appl 10:17 (2024). Xie & Ermon, IJCAI 2019 (relaxed top-k).
    """

    alpha: ClassVar[float]
    fits_on_validation: ClassVar[bool] = False
    trains_in_epochs: ClassVar[bool] = True
    reference: ClassVar[str] = "Gregory et al., npj Syst Biol Appl 2024"

    def __init__(
        self,
        n_markers: int = 50,
        *,
        hidden_size: int = 256,
        initial_temperature: float = 3.0,
        final_temperature: float = 0.6,
        annealing_share: float = 0.6,
        beta: float = 0.95,
        learning_rate: float = 3e-4,
        batch_size: int = 64,
        max_epochs: int = 60,
        min_epochs: int = 60,
        patience: int = 10,
        latent_size: int = 16,
        kl_weight: float = 0.1,
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
        self.seed = seed
        self.device = device

    def _run(
        self, X: Any, y: NDArray[np.int64] | None, X_val: Any, y_val: NDArray[np.int64] | None
    ) -> Iterator[Epoch]:
        import torch

        from mmlab.nn.losses import markermap_loss
        from mmlab.nn.networks import GeneLogits, MaskedVAE, PanelModel
        from mmlab.nn.training import TrainingConfig, recalibrate_batch_norm, train

        cells, labels = _dense(X), np.zeros(X.shape[0], np.int64) if y is None else y
        generator = torch.Generator(device=_device(self.device)).manual_seed(self.seed)
        n_genes, n_classes = cells.shape[1], 1 if y is None else len(self.classes_)
        proposal = GeneLogits(n_genes, self.n_markers, self.hidden_size, self.beta, generator)
        network = MaskedVAE(
            n_genes, n_classes, self.hidden_size, self.latent_size, self.alpha, generator
        )
        self.model_ = PanelModel(proposal, network)
        x, targets = self._tensor(cells, generator), self._tensor(labels, generator)
        validation: dict[str, Any] = {}
        if X_val is not None:
            val_labels = np.zeros(X_val.shape[0], np.int64) if y_val is None else y_val
            validation = {
                "x_val": self._tensor(_dense(X_val), generator),
                "y_val": self._tensor(val_labels, generator),
                "score": self._panel_score(cells, labels, _dense(X_val), val_labels),
            }
        config = TrainingConfig(
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            max_epochs=self.max_epochs,
            min_epochs=self.min_epochs,
            patience=self.patience,
            initial_temperature=self.initial_temperature,
            final_temperature=self.final_temperature,
            annealing_share=self.annealing_share,
        )
        loss = partial(markermap_loss, alpha=self.alpha, kl_weight=self.kl_weight)
        for epoch in train(self.model_, loss, config, generator, x, targets, **validation):
            self._set_panel(epoch.panel, proposal.logits.cpu().numpy())
            yield epoch
        recalibrate_batch_norm(self.model_, x)

    def _panel_score(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.int64],
        x_val: NDArray[np.float32],
        y_val: NDArray[np.int64],
    ) -> Any:
        """Score of a hard panel on the validation cells, higher is better."""

        def knn_accuracy(panel: NDArray[np.int64]) -> float:
            classifier = KNeighborsClassifier().fit(x[:, panel], y)
            return accuracy(y_val, classifier.predict(x_val[:, panel]))

        def variance_explained(panel: NDArray[np.int64]) -> float:
            return explained_variance(x_val, linear_reconstruction(x, x_val, panel))

        return knn_accuracy if self.supervised else variance_explained

    def reconstruct(self, X: Any) -> NDArray[np.float32] | None:
        """All genes of the cells ``X``, decoded from their panel genes alone.

        Parameters
        ----------
        X
            z-scores, shape (n_cells, n_genes).

        Returns
        -------
        Mean of the decoder at the latent mean, float32, shape of ``X``; None where the mode
        has no decoder (supervised).
        """
        import torch

        check_is_fitted(self, "model_")
        if self.alpha == 0:
            return None
        model: PanelModel = self.model_
        model.eval()
        with torch.no_grad():
            parts = self._tensor(_dense(X), model.proposal.generator).split(2048)
            rebuilt = [model(part, 0.0).x_mean.cpu().numpy() for part in parts]
        return np.concatenate(rebuilt)

    def _tensor(self, array: NDArray[Any], generator: Any) -> Tensor:
        import torch

        return torch.tensor(array, device=generator.device)

    def check_params(self) -> None:
        """Raise one error with every parameter that is out of its range."""
        problems = [
            f"{name} is {getattr(self, name)}, but must be at least 1"
            for name in ("hidden_size", "latent_size", "max_epochs", "min_epochs", "patience")
            if getattr(self, name) < 1
        ]
        problems += [
            f"{name} is {getattr(self, name)}, but must be a finite number above 0"
            for name in ("initial_temperature", "final_temperature", "learning_rate")
            if not 0 < getattr(self, name) < math.inf
        ]
        if self.batch_size < 2:
            problems.append(f"batch_size is {self.batch_size}, but must be at least 2")
        if not 0 < self.annealing_share <= 1:
            problems.append(f"annealing_share is {self.annealing_share}, but must be in (0, 1]")
        if not 0 <= self.beta < 1:
            problems.append(f"beta is {self.beta}, but must be in [0, 1)")
        if not 0 <= self.kl_weight < math.inf:
            problems.append(f"kl_weight is {self.kl_weight}, but must be finite and not negative")
        if problems:
            raise UserError("; ".join(problems) + ".")


class MarkerMapSupervised(MarkerMap):
    """MarkerMap that learns to tell the types apart (alpha 0); see :class:`MarkerMap`."""

    alpha: ClassVar[float] = 0.0
    summary: ClassVar[str] = "MarkerMap that learns to tell the types apart"


class MarkerMapUnsupervised(MarkerMap):
    """MarkerMap that learns to reconstruct all genes (alpha 1); see :class:`MarkerMap`."""

    alpha: ClassVar[float] = 1.0
    supervised: ClassVar[bool] = False
    summary: ClassVar[str] = "MarkerMap that learns to reconstruct all genes, without labels"


class MarkerMapJoint(MarkerMap):
    """MarkerMap that learns both at once (alpha 0.5); see :class:`MarkerMap`."""

    alpha: ClassVar[float] = 0.5
    summary: ClassVar[str] = "MarkerMap that learns both at once, losses weighted equally"


def _dense(X: Any) -> NDArray[np.float32]:
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float32)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.device(name))
    except RuntimeError as error:
        raise UserError(
            f"device {name!r} is not one that torch knows (auto, cpu, cuda)."
        ) from error
