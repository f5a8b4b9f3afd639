"""The base class of all marker selection methods, and how to add a method."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted

from mmlab.constraints.solver import PanelRules
from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.input_checks import (
    check_cells,
    check_counts,
    check_gene_lists,
    check_rules_feasible,
    check_validation_cells,
    encode_labels,
)
from mmlab.selectors.quick_training import QuickTraining
from mmlab.selectors.training_data import Indices, TrainingData
from mmlab.spec.base import Scalar, plain_scalar

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch


class Selector(SelectorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base class of all marker selection methods; a scikit-learn feature selector.

    A method chooses ``n_markers`` genes from training cells. :meth:`fit` sets ``panel_`` and
    ``scores_``; ``transform``, ``get_support`` and ``get_feature_names_out`` of scikit-learn
    follow from ``panel_``.

    To add a method:

    1. Write a subclass in a file of its own. If the method ranks the genes in one call, derive
       from :class:`~mmlab.selectors.ranking_selector.RankingSelector` and implement
       ``_rank_genes``. Otherwise derive from this class and implement :meth:`run`.
    2. Write a constructor that only stores its arguments, each in an attribute of the same name.
       All arguments have defaults; ``n_markers`` and ``seed`` are among them. Every other
       argument except ``device`` is a hyperparameter, which users set with ``--param`` and
       searches vary: annotate it as bool, int, float or str, or as a ``Literal`` of the allowed
       strings, or as a union such as ``float | Literal["auto"]``.
    3. Check the ranges of the hyperparameters in :meth:`check_params`.
    4. Set the class attributes below where the default does not fit.
    5. Document the constructor's arguments under the heading ``Parameters`` in the class
       docstring: ``mmlab methods info`` prints it.
    6. Add the class to the dict ``SELECTORS`` in ``mmlab/selectors/__init__.py``. The tests in
       ``tests/selectors`` then check this contract for it. A method that trains in epochs can be
       searched: add its search space as ``tune_configs/NAME.yaml``.

    A fit is a function of its inputs, its parameters and ``seed``: it uses no global random
    generator, does not modify its inputs and prints nothing.

    Attributes
    ----------
    layer : {"zscore", "log1p", "counts"}
        Class attribute: the matrix that :meth:`fit` reads. z-scores are standardised per gene
        and clipped at +-10, log1p are natural logarithms of normalised counts, counts are raw.
        Override :attr:`input_layer` if it depends on a parameter.
    supervised : bool
        Class attribute: whether :meth:`fit` needs labels. Other methods ignore them.
    fits_on_validation : bool
        Class attribute: whether the validation cells are added to the training cells. If not,
        the method gets them as ``X_val`` and ``y_val``, for early stopping.
    trains_in_epochs : bool
        Class attribute: whether :meth:`run` yields epochs, so that searches can stop trials early.
        Such a method has the parameter ``max_epochs``.
    reads_from_disk : bool
        Class attribute: whether the cells may be an
        :class:`~mmlab.preprocessing.expression.Expression`, which is read from disk in batches.
    is_control : bool
        Class attribute: whether the method is a control, which bounds the metrics of the others.
    takes_all_genes : bool
        Class attribute: whether the panel is every gene, so that no constraint applies to it.
    libraries : tuple of str
        Class attribute: libraries that :meth:`run` imports; trials load them before they measure.
    quick : QuickTraining or None
        Class attribute: a faster, less thorough training, used by ``--quick``; None if the method
        has none. :func:`mmlab.selectors.quick_params` returns its parameters.
    summary, reference : str
        Class attributes: what the method does, in one line, and its source.
    panel_ : int64 array of shape (n_markers,)
        Distinct gene indices: first the included genes in the given order, then the others, best
        first.
    scores_ : float64 array of shape (n_genes,)
        One finite score per gene, higher is better. Meaning and unit depend on the method.
    classes_ : array of shape (n_classes,)
        Sorted labels of training and validation cells, if labels were given.
    """

    layer: ClassVar[Layer] = "zscore"
    supervised: ClassVar[bool] = True
    fits_on_validation: ClassVar[bool] = True
    trains_in_epochs: ClassVar[bool] = False
    reads_from_disk: ClassVar[bool] = False
    is_control: ClassVar[bool] = False
    takes_all_genes: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ()
    quick: ClassVar[QuickTraining | None] = None
    summary: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    n_markers: int
    seed: int
    panel_: Indices
    scores_: NDArray[np.float64]
    classes_: NDArray[Any]

    @property
    def input_layer(self) -> Layer:
        """The layer that ``fit`` reads with the current parameters."""
        return self.layer

    @property
    def needs_counts(self) -> bool:
        """Whether ``fit`` needs the raw counts in addition to the layer."""
        return False

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        counts: Any = None,
        include: Sequence[int] | Indices = (),
        exclude: Sequence[int] | Indices = (),
        rules: PanelRules | None = None,
    ) -> Self:
        """Choose the panel.

        Parameters
        ----------
        X
            Training cells in the layer :attr:`input_layer`, shape (n_cells, n_genes), dense or
            sparse.
        y
            Label of each cell, of any type; required by supervised methods, ignored by others.
        X_val, y_val
            Validation cells and their labels, for methods with early stopping.
        counts
            Raw counts of the training cells, shape of ``X``; required if ``needs_counts``.
        include, exclude
            Indices of genes that the panel must contain, and must not contain.
        rules
            Further constraints on the panel.

        Raises
        ------
        UserError
            A parameter is out of range, ``n_markers`` exceeds the number of genes, labels are
            missing or have a single class, gene lists contradict each other, or no panel
            satisfies the rules.
        """
        lists: dict[str, Any] = {"include": include, "exclude": exclude, "rules": rules}
        for _ in self.fit_epochs(X, y, X_val=X_val, y_val=y_val, counts=counts, **lists):
            pass
        return self

    def fit_epochs(
        self,
        X: Any,
        y: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        counts: Any = None,
        include: Sequence[int] | Indices = (),
        exclude: Sequence[int] | Indices = (),
        rules: PanelRules | None = None,
    ) -> Iterator[Epoch]:
        """Fit like :meth:`fit`, and yield each epoch; nothing if the method has no epochs.

        ``panel_`` and ``scores_`` are valid after every epoch.
        """
        lists: dict[str, Any] = {"include": include, "exclude": exclude, "rules": rules}
        yield from self.run(self.check_data(X, y, X_val=X_val, y_val=y_val, counts=counts, **lists))

    def check_data(
        self,
        X: Any,
        y: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        counts: Any = None,
        include: Sequence[int] | Indices = (),
        exclude: Sequence[int] | Indices = (),
        rules: PanelRules | None = None,
    ) -> TrainingData:
        """Check the parameters and the arguments of :meth:`fit`; return the input of :meth:`run`.

        Labels become class indices, cells float32, numpy's numbers Python's. Raises like `fit`.
        """
        self.set_params(**{k: plain_scalar(v) for k, v in self.get_params(deep=False).items()})
        self.check_params()
        cells = check_cells(self, X)
        n_cells, n_genes = cells.shape
        if X_val is not None:
            X_val = check_validation_cells(self, X_val, y_val, n_genes)
        labels, val_labels = encode_labels(self, y, y_val, n_cells)
        included, excluded = check_gene_lists(n_genes, self.n_markers, include, exclude)
        check_rules_feasible(rules, n_genes, self.n_markers, included, excluded)
        counts = check_counts(self, counts, cells.shape)
        return TrainingData(cells, labels, X_val, val_labels, counts, included, excluded, rules)

    def check_params(self) -> None:
        """Raise one ``UserError`` that lists all parameters out of range."""

    def data_dependent_params(self, n_genes: int) -> dict[str, Scalar]:
        """Return the values for ``n_genes`` genes of parameters such as ``hidden_size="auto"``."""
        return {}

    def reconstruct(self, X: Any) -> NDArray[np.float32] | None:
        """Return all genes of z-scores ``X``, decoded from the panel; None without a decoder."""
        return None

    @abstractmethod
    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Choose the panel from checked input; yield each epoch.

        Set ``panel_`` and ``scores_`` with ``_set_panel``, or directly if the panel already
        satisfies all constraints of ``data``, before each epoch is yielded. A method without
        epochs ends with ``yield from ()``.
        """

    def _set_panel(self, ranking: Any, scores: Any, data: TrainingData) -> None:
        """Set ``scores_``, and ``panel_`` to the best genes that satisfy the constraints.

        See :meth:`mmlab.selectors.training_data.TrainingData.panel`.
        """
        self.scores_ = np.asarray(scores, dtype=np.float64)
        self.panel_ = data.panel(ranking, self.scores_, self.n_markers)

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self, "panel_")
        mask = np.zeros(self.n_features_in_, dtype=bool)
        mask[self.panel_] = True
        return mask

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = self.supervised
        return tags
