"""PERSIST: a panel learned from binarised counts, with labels or without (Covert et al. 2023)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmlab.errors import UserError
from mmlab.preprocessing.expression import to_dense
from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.base import Selector
from mmlab.selectors.training_data import Indices, TrainingData
from mmlab.system.devices import resolve_device

if TYPE_CHECKING:
    import torch

    from mmlab.nn.persist_training import PersistConfig, Task
    from mmlab.nn.training import Epoch


class Persist(Selector):
    """Base of the two modes; they differ in what the panel has to tell.

    A network with two hidden layers sees which genes of a cell have counts at all, and only
    those genes that a random mask lets through; mask and network are trained together. First
    most genes are eliminated: gates with a penalty leave about ten genes a marker (skipped
    where that is half of the genes or more). Then k concrete selectors choose among the rest;
    see :mod:`mmlab.nn.persist_stages`. The temperature of the masks falls in each stage.

    The panel is the favourite gene of every selector, the surest selector first; where two
    have the same, the less sure one gives its next best. The score of a gene is the largest
    probability that a selector gives it; 0 for genes that were eliminated or included.

    Parameters
    ----------
    n_markers
        Size of the panel, k.
    hidden_size
        Width of the two hidden layers.
    learning_rate
        Of Adam.
    batch_size
        Cells a step; fewer cells are one batch, and cells left over sit an epoch out.
    elimination_epochs
        Epochs of each of the at most ten trials of the elimination.
    selection_epochs
        Epochs of the selection, at most.
    initial_temperature, final_temperature
        Of the masks at the first and the last step of these epochs.
    faithful
        As published: an elimination that finds no penalty keeps all genes, instead of what its
        closest trial left; and the unsupervised mode predicts z-scores, where "zero" means below
        the mean of the gene, instead of log1p values.
    seed
        Of weights, batches and masks.
    device
        ``cpu``, ``cuda``, ...; ``auto`` takes CUDA where there is one.

    Attributes
    ----------
    candidates_ : int64 array
        Genes that the elimination left, ascending; all free ones where it was skipped.

    References
    ----------
    Covert et al., Nature Communications 14:2400 (2023).
    """

    fits_on_validation: ClassVar[bool] = False
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
    def _task(self, data: TrainingData, generator: torch.Generator) -> Task:
        """What is learned."""

    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Set the panel; see :meth:`mmlab.selectors.base.Selector.run`."""
        import torch

        generator = torch.Generator(device=resolve_device(self.device)).manual_seed(self.seed)
        n_selectors = self.n_markers - len(data.include)
        self.candidates_, genes = data.free, data.free[:0]
        scores = np.zeros(data.x.shape[1])
        if n_selectors:
            genes, probabilities = self._choose(data, n_selectors, generator)
            scores[self.candidates_] = probabilities.max(axis=0)
        self._set_panel(genes, scores, data)
        yield from ()

    def _choose(
        self, data: TrainingData, n_selectors: int, generator: torch.Generator
    ) -> tuple[Indices, NDArray[np.float64]]:
        """Chosen genes, best first, and the probability of each candidate for each selector."""
        from mmlab.nn.concrete_gate import distinct_choices, surest_first
        from mmlab.nn.persist_stages import eliminate, select

        config = self._config()
        task = self._task(data, generator)
        kept = eliminate(task, n_selectors, config, generator)
        self.candidates_ = data.free[kept.cpu().numpy()]
        only_kept = replace(task, free=task.free[:, kept])
        chances = select(only_kept, n_selectors, config, generator)
        probabilities = chances.cpu().numpy().astype(np.float64)
        genes = distinct_choices(probabilities)[surest_first(probabilities)]
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
        """Raise one error with every parameter that is out of its range."""
        problems = [
            f"{name} is {getattr(self, name)}, but must be at least 1"
            for name in ("hidden_size", "batch_size", "elimination_epochs", "selection_epochs")
            if getattr(self, name) < 1
        ]
        problems += [
            f"{name} is {getattr(self, name)}, but must be a finite number above 0"
            for name in ("learning_rate", "initial_temperature", "final_temperature")
            if not 0 < getattr(self, name) < math.inf
        ]
        if problems:
            raise UserError("; ".join(problems) + ".")


def _binarised(counts: Any, data: TrainingData, generator: torch.Generator) -> list[torch.Tensor]:
    """1 where there is a count, of the genes that are always visible and of the free ones."""
    import torch

    present = (to_dense(counts) > 0).astype(np.float32)
    return [
        torch.tensor(present[:, genes], device=generator.device)
        for genes in (data.include, data.free)
    ]


class PersistSupervised(Persist):
    """PERSIST that learns to tell the types apart, with cross-entropy; see :class:`Persist`."""

    layer: ClassVar[Layer] = "counts"
    summary: ClassVar[str] = "network on binarised counts that learns to tell the types apart"

    def _task(self, data: TrainingData, generator: torch.Generator) -> Task:
        import torch
        from torch.nn.functional import cross_entropy

        from mmlab.nn.persist_training import Task

        seen, free = _binarised(data.x, data, generator)
        y = torch.tensor(data.y, device=generator.device)
        return Task(seen, free, y, len(self.classes_), cross_entropy, first_penalty=1e-4)


class PersistUnsupervised(Persist):
    """PERSIST that learns to predict all genes, without labels; see :class:`Persist`.

    Of every gene the network predicts whether it is zero and, where it is not, its log1p
    value; see :func:`mmlab.nn.persist_training.hurdle_loss`.
    """

    layer: ClassVar[Layer] = "log1p"
    supervised: ClassVar[bool] = False
    summary: ClassVar[str] = "network on binarised counts that learns to predict all genes"

    @property
    def input_layer(self) -> Layer:
        """The target of the hurdle loss: z-scores as published, else log1p."""
        return "zscore" if self.faithful else self.layer

    @property
    def needs_counts(self) -> bool:
        """With z-scores: they do not tell which counts are zero, as log1p values do."""
        return self.faithful

    def _task(self, data: TrainingData, generator: torch.Generator) -> Task:
        import torch

        from mmlab.nn.persist_training import Task, hurdle_loss

        seen, free = _binarised(data.counts if self.faithful else data.x, data, generator)
        target = torch.tensor(to_dense(data.x), device=generator.device)
        n_outputs = 2 * target.shape[1]
        return Task(seen, free, target, n_outputs, hurdle_loss, first_penalty=0.01)
