"""What the selectors that train an autoencoder together with a panel have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import ThreadpoolController

from mmlab.errors import UserError
from mmlab.metrics.classification import accuracy
from mmlab.metrics.reconstruction import explained_variance, linear_reconstruction
from mmlab.preprocessing.expression import Expression, to_dense
from mmlab.preprocessing.splits import subsample
from mmlab.selectors.base import Selector
from mmlab.selectors.training_data import TrainingData
from mmlab.selectors.vae_parameters import WIDTH_SHARES, parameter_problems
from mmlab.spec.base import Scalar
from mmlab.spec.protocol import MAX_EVALUATION_CELLS, MAX_FIT_CELLS
from mmlab.system.devices import has_fast_bfloat16, resolve_device

if TYPE_CHECKING:
    from torch import Tensor

    from mmlab.nn.gates import CandidateGenes, Gate
    from mmlab.nn.layers import RandomSource
    from mmlab.nn.networks import PanelModel
    from mmlab.nn.training import Epoch, PanelScore
    from mmlab.nn.training_config import TrainingConfig

#: Width of the hidden layers in the published benchmark, by the largest number of genes.
_PUBLISHED_WIDTHS = ((999, 64), (4000, 256), (math.inf, 500))


class VAESelector(Selector):
    """Base of the selectors whose proposal of a panel is trained with a :class:`PanelVAE`.

    A subclass says which proposal it trains, and ``alpha``, the weight of the reconstruction:
    0 learns from the labels alone, 1 without them.
    """

    alpha: ClassVar[float]
    fits_on_validation: ClassVar[bool] = False
    trains_in_epochs: ClassVar[bool] = True
    reads_from_disk: ClassVar[bool] = True
    #: Of the published training: decay and floor of the temperature, highest learning rate of
    #: the range test, patience.
    published: ClassVar[tuple[float, float, float, int]]

    hidden_size: int | Literal["auto", "half"]
    initial_temperature: float
    final_temperature: float
    annealing_share: float
    learning_rate: float | Literal["auto"]
    batch_size: int
    max_epochs: int
    min_epochs: int
    patience: int
    latent_size: int
    kl_weight: float
    faithful: bool
    device: str
    #: ``float32``, or ``mixed`` where the method offers it.
    precision: str = "float32"

    @abstractmethod
    def _make_gate(
        self, candidates: CandidateGenes, noise: RandomSource, pack: Sequence[VAESelector]
    ) -> Gate:
        """The untrained proposal of a pack of selectors of this class, this one among them."""

    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Set the panel; see :meth:`mmlab.selectors.base.Selector.run`."""
        for (epoch,) in train_batched([self], [data]):
            assert epoch is not None
            yield epoch

    def settled_params(self, n_genes: int) -> dict[str, Scalar]:
        """The width of the hidden layers for data of so many genes."""
        if isinstance(self.hidden_size, str):
            published = next(width for most, width in _PUBLISHED_WIDTHS if n_genes <= most)
            return {"hidden_size": int(published * WIDTH_SHARES[self.hidden_size])}
        return {"hidden_size": self.hidden_size}

    def _width(self, n_genes: int) -> int:
        return int(self.settled_params(n_genes)["hidden_size"])

    def _config(self) -> TrainingConfig:
        from mmlab.nn.training_config import Annealing, Decay, RangeTest, TrainingConfig

        rate, floor, highest, patience = self.published
        if self.faithful:
            return TrainingConfig(
                learning_rate=RangeTest(highest),
                batch_size=self.batch_size,
                max_epochs=100,
                min_epochs=25,
                patience=patience,
                schedule=Decay(3.0, rate, floor),
                stop_on="loss",
            )
        last = max(round(self.annealing_share * self.max_epochs), 1)
        return TrainingConfig(
            learning_rate=RangeTest(highest)
            if self.learning_rate == "auto"
            else self.learning_rate,
            batch_size=self.batch_size,
            max_epochs=self.max_epochs,
            min_epochs=self.min_epochs,
            patience=self.patience,
            schedule=Annealing(self.initial_temperature, self.final_temperature, last),
        )

    def _score(self, data: TrainingData) -> PanelScore | None:
        """How good a hard panel is on the validation cells; None without them."""
        if data.x_val is None:
            return None
        fit_on = subsample(len(data.x), MAX_FIT_CELLS)
        judge_on = subsample(len(data.x_val), MAX_EVALUATION_CELLS)
        x = data.x[fit_on] if isinstance(data.x, Expression) else to_dense(data.x)[fit_on]
        x_val = to_dense(data.x_val[judge_on])
        y, y_val = _labels(data.x, data.y)[fit_on], _labels(data.x_val, data.y_val)[judge_on]

        def knn_accuracy(panel: NDArray[np.int64]) -> float:
            classifier = KNeighborsClassifier().fit(to_dense(x[:, panel]), y)
            return accuracy(y_val, classifier.predict(x_val[:, panel]))

        def variance_explained(panel: NDArray[np.int64]) -> float:
            return explained_variance(x_val, linear_reconstruction(x, x_val, panel))

        # BLAS's threads spin for a while after each call: torch's would have to share the cores.
        alone = ThreadpoolController().wrap(limits=1, user_api="blas")
        wrapped: PanelScore = alone(knn_accuracy if self.supervised else variance_explained)
        return wrapped

    def reconstruct(self, X: Any) -> NDArray[np.float32] | None:
        """All genes of the cells ``X``, decoded from their panel genes alone.

        Parameters
        ----------
        X
            z-scores, shape (n_cells, n_genes).

        Returns
        -------
        Mean of the decoder at the latent mean, float32, shape of ``X``; None where the method
        has no decoder (supervised MarkerMap).
        """
        import torch

        check_is_fitted(self, "model_")
        if self.alpha == 0:
            return None
        model: PanelModel = self.model_
        model.eval()
        with torch.no_grad():
            parts = torch.tensor(to_dense(X), device=model.gate.noise.device).split(2048)
            rebuilt = [model(part[None], 0.0).x_mean[0].cpu().numpy() for part in parts]
        return np.concatenate(rebuilt)

    def check_params(self) -> None:
        """Raise one error with every parameter that is out of its range."""
        problems = parameter_problems(self) + self._more_problems()
        if problems:
            raise UserError("; ".join(problems) + ".")

    def _more_problems(self) -> list[str]:
        """What is wrong with the parameters that only this method has."""
        return []


def train_batched(
    selectors: Sequence[VAESelector], data: Sequence[TrainingData]
) -> Iterator[list[Epoch | None]]:
    """Train selectors as one pack; an item an epoch, see :func:`mmlab.nn.training.train`.

    Parameters
    ----------
    selectors
        Of one class, with the same parameters but for the seed, the learning rate, the
        temperatures, ``beta`` and what ends the training.
    data
        Cells, labels and validation cells of each, of the same shapes; genes to include and to
        exclude are the same for all, the other rules are each one's own.
    """
    import torch

    from mmlab.nn.cell_reader import CellReader
    from mmlab.nn.gates import CandidateGenes
    from mmlab.nn.layers import RandomSource
    from mmlab.nn.losses import markermap_loss
    from mmlab.nn.networks import PanelModel, PanelVAE
    from mmlab.nn.training import TrainingPlan, recalibrate_batch_norm, train

    first = selectors[0]
    device = resolve_device(first.device)
    noise = RandomSource([torch.Generator(device=device).manual_seed(s.seed) for s in selectors])

    def stacked(arrays: Sequence[NDArray[Any]]) -> Tensor:
        return torch.stack([torch.tensor(array, device=device) for array in arrays])

    def cells(sources: Sequence[Any]) -> Tensor | CellReader:
        if isinstance(sources[0], Expression):
            return CellReader(sources, device)
        return stacked([to_dense(source) for source in sources])

    x = cells([d.x for d in data])
    y = stacked([_labels(d.x, d.y) for d in data])
    x_val = y_val = None
    if data[0].x_val is not None:
        x_val = cells([d.x_val for d in data])
        y_val = stacked([_labels(d.x_val, d.y_val) for d in data])
    n_genes = x.shape[-1]
    n_classes = 1 if data[0].y is None else max(len(s.classes_) for s in selectors)
    rules = tuple(d.rules for d in data)
    candidates = CandidateGenes(n_genes, first.n_markers, data[0].include, data[0].free, rules)
    gate = first._make_gate(candidates, noise, selectors)
    network = PanelVAE(
        gate.n_inputs,
        n_genes,
        n_classes,
        first._width(n_genes),
        first.latent_size,
        first.alpha,
        noise,
    )
    model = PanelModel(gate, network)
    if first.precision == "mixed" and has_fast_bfloat16(device):
        model.round_products()
    loss = partial(
        markermap_loss,
        alpha=first.alpha,
        kl_weight=first.kl_weight,
        per_gene=not first.faithful,
    )
    plans = [TrainingPlan(s._config(), s._score(d)) for s, d in zip(selectors, data, strict=True)]
    for epochs in train(model, loss, plans, x, y, x_val, y_val):
        for i, (selector, epoch) in enumerate(zip(selectors, epochs, strict=True)):
            if epoch is None:
                continue
            selector.panel_, selector.scores_ = epoch.panel, gate.ranking(i)[1]
            if epoch.last:
                selector.model_ = model.single(i)
                recalibrate_batch_norm(selector.model_, x[i : i + 1])
        yield epochs


def _labels(x: Any, y: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Class indices; zeros where a method that uses no labels was given none."""
    return np.zeros(x.shape[0], np.int64) if y is None else y
