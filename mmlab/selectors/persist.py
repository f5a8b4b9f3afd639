"""PERSIST: a panel learned from binarised counts, with or without labels (Covert et al. 2023)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmlab.errors import UserError, join_problems
from mmlab.preprocessing.expression import to_dense
from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.base import Selector
from mmlab.selectors.parameter_ranges import count_problems, divergence_advice
from mmlab.selectors.training_data import Indices, TrainingData
from mmlab.system.devices import resolve_device

if TYPE_CHECKING:
    import torch

    from mmlab.nn.persist_training import PersistConfig, PersistTask
    from mmlab.nn.training import Epoch


class Persist(Selector):
    """PERSIST learns a panel and a network that uses it, from binarised counts.

    A network with two hidden layers gets only whether each gene has a count above zero, and only
    the genes that a random mask lets through. Mask and network are trained together. The
    supervised mode classifies the cell types; the unsupervised mode predicts the expression of
    all genes: whether each gene is zero and, if not, its log1p value (hurdle loss).

    Training has two stages. The elimination trains one binary gate per gene and searches for the
    penalty on open gates that leaves about ten genes per marker; it is skipped if that is at
    least half of the genes. The selection trains k concrete selectors on the remaining genes. In
    each stage the temperature of the masks falls.

    The panel is the most probable gene of every selector; the selector with the largest
    probability chooses first, and a selector whose gene is already taken gives its next best
    gene. The score of a gene is the largest probability that a selector gives it, in [0, 1]; 0
    for genes that were eliminated or included.

    Parameters
    ----------
    n_markers
        Size of the panel, k.
    hidden_size
        Width of the two hidden layers, at least 1.
    learning_rate
        Learning rate of Adam, above 0.
    batch_size
        Cells per training step, at least 1. If there are fewer cells, they form one batch; an
        incomplete last batch is left out of the epoch.
    elimination_epochs
        Largest number of epochs per penalty of the elimination, at least 1. At most ten
        penalties are tried.
    selection_epochs
        Largest number of epochs of the selection, at least 1.
    initial_temperature, final_temperature
        Temperature of the masks in the first and in the last step of these epochs, above 0.
    faithful
        Follow the published code. If no penalty leaves about the required number of genes, the
        elimination keeps all genes, instead of those left by the closest penalty. The
        unsupervised mode predicts z-scores, where "zero" means below the mean of the gene,
        instead of log1p values.
    seed
        Seed of the initial weights, batches and masks.
    device
        Device of torch, such as ``cpu`` or ``cuda``; ``auto`` is CUDA if available, else the CPU.

    Attributes
    ----------
    candidates_ : int64 array
        Indices of the genes that the elimination left, ascending; all genes that are neither
        included nor excluded if it was skipped.

    References
    ----------
    Covert et al., Nature Communications 14:2400 (2023).
    """

    fits_on_validation: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    reference: ClassVar[str] = "Covert et al., Nature Communications 2023"

    candidates_: Indices

    def __init__(
        self,
        n_markers: int = 50,
        *,
        hidden_size: int = 128,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        elimination_epochs: int = 50,
        selection_epochs: int = 250,
        initial_temperature: float = 10.0,
        final_temperature: float = 0.01,
        faithful: bool = False,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_markers = n_markers
        self.hidden_size = hidden_size
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.elimination_epochs = elimination_epochs
        self.selection_epochs = selection_epochs
        self.initial_temperature = initial_temperature
        self.final_temperature = final_temperature
        self.faithful = faithful
        self.seed = seed
        self.device = device

    @abstractmethod
    def _task(self, data: TrainingData, generator: torch.Generator) -> PersistTask:
        """Return what the network predicts, from which genes, with which loss."""

    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Choose the panel; see :meth:`mmlab.selectors.base.Selector.run`."""
        import torch

        generator = torch.Generator(device=resolve_device(self.device)).manual_seed(self.seed)
        n_selectors = self.n_markers - len(data.include)
        self.candidates_, genes = data.free, data.free[:0]
        scores = np.zeros(data.x.shape[1])
        if n_selectors:
            with divergence_advice(self):
                genes, probabilities = self._train(data, n_selectors, generator)
            scores[self.candidates_] = probabilities.max(axis=0)
        self._set_panel(genes, scores, data)
        yield from ()

    def _train(
        self, data: TrainingData, n_selectors: int, generator: torch.Generator
    ) -> tuple[Indices, NDArray[np.float64]]:
        """Return the chosen genes, best first, and probabilities (n_selectors, n_candidates)."""
        from mmlab.nn.concrete_gate import assign_distinct_genes, order_by_largest_weight
        from mmlab.nn.persist_stages import eliminate, select

        config = self._config()
        task = self._task(data, generator)
        kept = eliminate(task, n_selectors, config, generator)
        self.candidates_ = data.free[kept.cpu().numpy()]
        selection = replace(task, free=task.free[:, kept])
        weights = select(selection, n_selectors, config, generator)
        probabilities = weights.cpu().numpy().astype(np.float64)
        genes = assign_distinct_genes(probabilities)[order_by_largest_weight(probabilities)]
        return self.candidates_[genes], probabilities

    def _config(self) -> PersistConfig:
        from mmlab.nn.persist_training import PersistConfig

        return PersistConfig(
            hidden_size=self.hidden_size,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            elimination_epochs=self.elimination_epochs,
            selection_epochs=self.selection_epochs,
            initial_temperature=self.initial_temperature,
            final_temperature=self.final_temperature,
            keep_all=self.faithful,
        )

    def check_params(self) -> None:
        """Raise one ``UserError`` that lists all parameters out of range."""
        counts = ("hidden_size", "batch_size", "elimination_epochs", "selection_epochs")
        problems = count_problems(vars(self), counts)
        problems += [
            f"{name} is {getattr(self, name)}, but must be a finite number above 0"
            for name in ("learning_rate", "initial_temperature", "final_temperature")
            if not 0 < getattr(self, name) < math.inf
        ]
        if problems:
            raise UserError(join_problems(problems))


def _binarised(counts: Any, data: TrainingData, generator: torch.Generator) -> list[torch.Tensor]:
    """Return the binarised counts of the included genes and of the free genes, 0 or 1."""
    import torch

    present = (to_dense(counts) > 0).astype(np.float32)
    return [
        torch.tensor(present[:, genes], device=generator.device)
        for genes in (data.include, data.free)
    ]


class PersistSupervised(Persist):
    """PERSIST trained to classify cell types with cross-entropy; see :class:`Persist`."""

    layer: ClassVar[Layer] = "counts"
    summary: ClassVar[str] = "network on binarised counts, trained to classify cell types (PERSIST)"

    def _task(self, data: TrainingData, generator: torch.Generator) -> PersistTask:
        import torch
        from torch.nn.functional import cross_entropy

        from mmlab.nn.persist_training import PersistTask

        seen, free = _binarised(data.x, data, generator)
        y = torch.tensor(data.y, device=generator.device)
        return PersistTask(seen, free, y, len(self.classes_), cross_entropy, first_penalty=1e-4)


class PersistUnsupervised(Persist):
    """PERSIST trained to predict all genes without labels; see :class:`Persist`.

    For every gene the network predicts whether it is zero and, if not, its log1p value; see
    :func:`mmlab.nn.persist_training.hurdle_loss`.
    """

    layer: ClassVar[Layer] = "log1p"
    supervised: ClassVar[bool] = False
    summary: ClassVar[str] = "network on binarised counts, trained to predict all genes (PERSIST)"

    @property
    def input_layer(self) -> Layer:
        """log1p values, the target of the hurdle loss; z-scores with ``faithful``."""
        return "zscore" if self.faithful else self.layer

    @property
    def needs_counts(self) -> bool:
        """True with ``faithful``: z-scores do not show which counts are zero."""
        return self.faithful

    def _task(self, data: TrainingData, generator: torch.Generator) -> PersistTask:
        import torch

        from mmlab.nn.persist_training import PersistTask, hurdle_loss

        seen, free = _binarised(data.counts if self.faithful else data.x, data, generator)
        target = torch.tensor(to_dense(data.x), device=generator.device)
        n_outputs = 2 * target.shape[1]
        return PersistTask(seen, free, target, n_outputs, hurdle_loss, first_penalty=0.01)
