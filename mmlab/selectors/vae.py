"""Base class of the methods that train a variational autoencoder (VAE) together with a panel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from mmlab.errors import UserError, join_problems
from mmlab.preprocessing.expression import Expression, to_dense
from mmlab.selectors.base import Selector
from mmlab.selectors.parameter_ranges import constructor_defaults, divergence_advice
from mmlab.selectors.training_data import TrainingData, labels_or_zeros
from mmlab.selectors.vae_parameters import PublishedTraining, hidden_width, parameter_problems
from mmlab.selectors.validation_score import validation_score
from mmlab.spec.base import Scalar
from mmlab.system.devices import has_fast_bfloat16, resolve_device

if TYPE_CHECKING:
    from torch import Tensor

    from mmlab.nn.gates import CandidateGenes, Gate
    from mmlab.nn.layers import RandomSource
    from mmlab.nn.networks import PanelModel
    from mmlab.nn.training import Epoch
    from mmlab.nn.training_config import TrainingConfig


class VAESelector(Selector):
    """Base class of the methods that train a variational autoencoder together with a panel.

    The cells pass through a gate, which shows the network only the genes of the panel. The gate
    and the network are trained together. A subclass provides the gate with ``_make_gate``.

    Attributes
    ----------
    alpha : float
        Class attribute: weight of the reconstruction loss, in [0, 1]; the classification loss has
        the weight ``1 - alpha``. 0 trains on the labels alone, 1 without them.
    published : PublishedTraining
        Class attribute: the training of the published benchmark, for ``faithful=True``.
    model_ : PanelModel
        The trained gate and network, on the device of the training.
    """

    alpha: ClassVar[float]
    fits_on_validation: ClassVar[bool] = False
    trains_in_epochs: ClassVar[bool] = True
    reads_from_disk: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    published: ClassVar[PublishedTraining]

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
    #: ``float32``, or ``mixed`` if the method has this parameter.
    precision: str = "float32"

    @abstractmethod
    def _make_gate(
        self, candidates: CandidateGenes, noise: RandomSource, selectors: Sequence[VAESelector]
    ) -> Gate:
        """Return an untrained gate for a batch of models, one per selector of this class."""

    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Train the model; see :meth:`mmlab.selectors.base.Selector.run`."""
        for (epoch,) in train_batched([self], [data]):
            assert epoch is not None
            yield epoch

    def data_dependent_params(self, n_genes: int) -> dict[str, Scalar]:
        """Return ``hidden_size``, the width of the hidden layers, as a number."""
        return {"hidden_size": hidden_width(self.hidden_size, n_genes)}

    def _config(self) -> TrainingConfig:
        from mmlab.nn.training_config import Annealing, Decay, RangeTest, TrainingConfig

        published = self.published
        range_test = RangeTest(published.max_learning_rate)
        if self.faithful:
            return TrainingConfig(
                learning_rate=range_test,
                batch_size=self.batch_size,
                max_epochs=100,
                min_epochs=25,
                patience=published.patience,
                schedule=Decay(3.0, published.temperature_decay, published.min_temperature),
                stop_on="loss",
            )
        last_annealing_epoch = max(round(self.annealing_share * self.max_epochs), 1)
        return TrainingConfig(
            learning_rate=range_test if self.learning_rate == "auto" else self.learning_rate,
            batch_size=self.batch_size,
            max_epochs=self.max_epochs,
            min_epochs=self.min_epochs,
            patience=self.patience,
            schedule=Annealing(
                self.initial_temperature, self.final_temperature, last_annealing_epoch
            ),
        )

    def reconstruct(self, X: Any) -> NDArray[np.float32] | None:
        """Return all genes of the cells ``X``, decoded from their panel genes.

        Parameters
        ----------
        X
            z-scores, shape (n_cells, n_genes).

        Returns
        -------
        Mean of the decoder at the mean of the latent distribution: z-scores, float32, shape of
        ``X``. None for supervised MarkerMap, which has no decoder.
        """
        import torch

        check_is_fitted(self, "model_")
        if self.alpha == 0:
            return None
        model: PanelModel = self.model_
        model.eval()
        with torch.no_grad():
            parts = torch.tensor(to_dense(X), device=model.gate.noise.device).split(2048)
            means = [model(part[None], 0.0).x_mean[0].cpu().numpy() for part in parts]
        return np.concatenate(means)

    def check_params(self) -> None:
        """Raise one ``UserError`` that lists all parameters out of range."""
        problems = parameter_problems(vars(self), constructor_defaults(self))
        problems += self._own_parameter_problems()
        if problems:
            raise UserError(join_problems(problems))

    def _own_parameter_problems(self) -> list[str]:
        """Return one message per out-of-range parameter that only this method has."""
        return []


def train_batched(
    selectors: Sequence[VAESelector], data: Sequence[TrainingData]
) -> Iterator[list[Epoch | None]]:
    """Train the models of several selectors as one batch; yield every epoch.

    Each selector gets its ``panel_`` and ``scores_`` after every epoch, and ``model_`` after its
    last one. Up to the rounding of float32 these are the same as if it were trained alone.

    Parameters
    ----------
    selectors
        Selectors of one class. Their parameters are the same, except for the seed, the learning
        rate, the temperatures, ``annealing_share``, ``beta``, ``min_epochs`` and ``patience``.
    data
        Training data of each selector: cells, labels and validation cells of equal shapes, the
        same ``include`` and ``exclude``; ``rules`` may differ.

    Yields
    ------
    One epoch per selector, None for one that has ended: see :func:`mmlab.nn.training.train`.
    """
    import torch

    from mmlab.nn.cell_reader import CellReader
    from mmlab.nn.layers import RandomSource
    from mmlab.nn.losses import markermap_loss
    from mmlab.nn.training import TrainingPlan, recalibrate_batch_norm, train

    first = selectors[0]
    device = resolve_device(first.device)
    noise = RandomSource([torch.Generator(device=device).manual_seed(s.seed) for s in selectors])

    def cells(sources: Sequence[Any]) -> Tensor | CellReader:
        if isinstance(sources[0], Expression):
            return CellReader(sources, device)
        return _stacked(map(to_dense, sources), len(sources), device)

    def labels(pairs: Iterable[tuple[Any, Any]]) -> Tensor:
        return _stacked((labels_or_zeros(*pair) for pair in pairs), len(data), device)

    x = cells([d.x for d in data])
    y = labels((d.x, d.y) for d in data)
    x_val = y_val = None
    if data[0].x_val is not None:
        x_val = cells([d.x_val for d in data])
        y_val = labels((d.x_val, d.y_val) for d in data)
    model = _untrained_model(selectors, data, noise)
    if first.precision == "mixed" and has_fast_bfloat16(device):
        model.use_mixed_precision()
    loss = partial(
        markermap_loss,
        alpha=first.alpha,
        kl_weight=first.kl_weight,
        per_gene=not first.faithful,
    )
    plans = [
        TrainingPlan(s._config(), validation_score(d, supervised=s.supervised))
        for s, d in zip(selectors, data, strict=True)
    ]
    with divergence_advice(first):
        for epochs in train(model, loss, plans, x, y, x_val, y_val):
            for i, (selector, epoch) in enumerate(zip(selectors, epochs, strict=True)):
                if epoch is None:
                    continue
                selector.panel_, selector.scores_ = epoch.panel, model.gate.ranking(i)[1]
                if epoch.last:
                    selector.model_ = model.single(i)
                    recalibrate_batch_norm(selector.model_, x[i : i + 1])
            yield epochs


def _stacked(arrays: Iterable[NDArray[Any]], n: int, device: str) -> Tensor:
    """Return ``n`` arrays of equal shape as one tensor on the device, copied one by one."""
    import torch

    result: Tensor | None = None
    for i, array in enumerate(arrays):
        values = torch.tensor(array)
        if result is None:
            result = torch.empty((n, *values.shape), dtype=values.dtype, device=device)
        result[i] = values
    assert result is not None
    return result


def _untrained_model(
    selectors: Sequence[VAESelector], data: Sequence[TrainingData], noise: RandomSource
) -> PanelModel:
    """Return gates and networks of all selectors, with random initial weights."""
    from mmlab.nn.gates import CandidateGenes
    from mmlab.nn.networks import PanelModel, PanelVAE

    first, n_genes = selectors[0], data[0].x.shape[1]
    n_classes = 1 if data[0].y is None else max(len(s.classes_) for s in selectors)
    rules = tuple(d.rules for d in data)
    candidates = CandidateGenes(n_genes, first.n_markers, data[0].include, data[0].free, rules)
    gate = first._make_gate(candidates, noise, selectors)
    network = PanelVAE(
        gate.n_inputs,
        n_genes,
        n_classes,
        hidden_width(first.hidden_size, n_genes),
        first.latent_size,
        first.alpha,
        noise,
    )
    return PanelModel(gate, network)
