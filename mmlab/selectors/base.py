"""The contract that every marker selection method keeps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from mmlab.constraints.solver import PanelRules
from mmlab.errors import UserError
from mmlab.preprocessing.expression import Expression, to_memory
from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.training_data import (
    Indices,
    TrainingData,
    check_lists,
    check_rules,
    one_sparse_class,
)
from mmlab.spec.base import Scalar

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch


class Selector(SelectorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A method that chooses ``n_markers`` genes; a scikit-learn feature selector.

    Class attributes tell the pipeline what to hand over: ``layer`` (the matrix that ``fit``
    reads; :attr:`input_layer` where parameters decide),
    ``supervised`` (labels are needed), ``fits_on_validation`` (the validation cells join the
    training cells, because nothing is stopped on them), ``trains_in_epochs`` (its epochs can
    be watched and stopped), ``reads_from_disk`` (it goes through cells that memory does not hold),
    ``is_control`` (it bounds the other methods instead of competing), ``takes_all_genes`` (its
    panel is every gene), ``quick`` (parameters with
    which it takes a fraction of the time, where it has such).

    Attributes
    ----------
    panel_ : int64 array of shape (n_markers,)
        Distinct gene indices, best first; genes that had to be included come first of all.
    scores_ : float64 array of shape (n_genes,)
        Finite; higher is better. What it measures is the method's own matter.
    """

    layer: ClassVar[Layer] = "zscore"
    supervised: ClassVar[bool] = True
    fits_on_validation: ClassVar[bool] = True
    trains_in_epochs: ClassVar[bool] = False
    reads_from_disk: ClassVar[bool] = False
    is_control: ClassVar[bool] = False
    takes_all_genes: ClassVar[bool] = False
    quick: ClassVar[dict[str, Scalar]] = {}
    summary: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    n_markers: int
    seed: int
    panel_: Indices
    scores_: NDArray[np.float64]

    @property
    def input_layer(self) -> Layer:
        """The layer that ``fit`` reads with the present parameters."""
        return self.layer

    @property
    def needs_counts(self) -> bool:
        """Whether ``fit`` reads the raw counts beside its layer, with the present parameters."""
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
            Cells (n_cells, n_genes) in the layer that the class declares; dense or sparse.
        y
            Class of each cell; needed by supervised methods, ignored by the others.
        X_val, y_val
            Validation cells, for methods that can stop early.
        counts
            Raw counts of the cells ``X``, for methods with ``needs_counts``.
        include, exclude
            Indices of genes that the panel must hold, and must not hold.
        rules
            What else the panel holds.

        Raises
        ------
        UserError
            More markers than genes, labels missing, fewer than two classes, lists of genes that
            contradict each other, rules that no panel holds.
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
        """Like :meth:`fit`, an item an epoch; none for a method that has no epochs.

        ``panel_`` and ``scores_`` are valid after every item.
        """
        lists: dict[str, Any] = {"include": include, "exclude": exclude, "rules": rules}
        yield from self.run(self.checked(X, y, X_val=X_val, y_val=y_val, counts=counts, **lists))

    def checked(
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
        """What :meth:`fit` was given, checked together with the parameters."""
        self.check_params()
        cells = self._check_cells(X)
        if X_val is not None:
            X_val = self._check_validation(cells, X_val, y_val)
        labels, val_labels = self._check_labels(cells, y, y_val)
        included, excluded = check_lists(cells.shape[1], self.n_markers, include, exclude)
        check_rules(rules, cells.shape[1], self.n_markers, included, excluded)
        counts = self._check_counts(cells, counts)
        return TrainingData(cells, labels, X_val, val_labels, counts, included, excluded, rules)

    def check_params(self) -> None:
        """Raise one ``UserError`` with every parameter that is out of its range."""

    def settled_params(self, n_genes: int) -> dict[str, Scalar]:
        """Values of the parameters that are left to the data, for data of so many genes."""
        return {}

    def reconstruct(self, X: Any) -> NDArray[np.float32] | None:
        """All genes of the z-scores ``X`` from the panel, by the method's own decoder.

        None for a method that has no decoder.
        """
        return None

    @abstractmethod
    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Set ``panel_`` and ``scores_`` from checked data; an item an epoch."""

    def _check_cells(self, X: Any) -> Any:
        if isinstance(X, Expression):
            self.n_features_in_ = X.shape[1]
            X = X if self.reads_from_disk else to_memory(X)
        else:
            X = one_sparse_class(validate_data(self, X, accept_sparse="csr", dtype=np.float32))
        n_genes = X.shape[1]
        if not 1 <= self.n_markers <= n_genes:
            raise UserError(
                f"n_markers is {self.n_markers}, but the data have {n_genes} genes; "
                f"give a number from 1 to {n_genes}."
            )
        return X

    def _check_validation(self, X: Any, X_val: Any, y_val: Any) -> Any:
        if isinstance(X_val, Expression):
            X_val = X_val if self.reads_from_disk else to_memory(X_val)
        else:
            X_val = one_sparse_class(check_array(X_val, accept_sparse="csr", dtype=np.float32))
        if X_val.shape[1] != X.shape[1]:
            raise UserError(
                f"the validation cells have {X_val.shape[1]} genes, the others {X.shape[1]}."
            )
        if y_val is None and self.supervised:
            raise UserError(
                f"{type(self).__name__} is supervised: its validation cells need labels."
            )
        if y_val is not None and len(y_val) != X_val.shape[0]:
            raise UserError(
                f"there are {X_val.shape[0]} validation cells but {len(y_val)} labels for them."
            )
        return X_val

    def _check_labels(
        self, X: Any, y: Any, y_val: Any
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
        """Class indices of training and validation cells; ``classes_`` holds the names."""
        if y is None:
            if self.supervised:
                raise UserError(f"{type(self).__name__} is supervised: it needs a label a cell.")
            return None, None
        if len(y) != X.shape[0]:
            raise UserError(f"there are {X.shape[0]} cells but {len(y)} labels.")
        train = np.asarray(y)
        validation = train[:0] if y_val is None else np.asarray(y_val)
        self.classes_, codes = np.unique(np.concatenate([train, validation]), return_inverse=True)
        if self.supervised and len(self.classes_) < 2:
            raise UserError(
                f"the only class is {str(self.classes_[0])!r}; at least two are needed."
            )
        codes = codes.astype(np.int64)
        return codes[: len(train)], None if y_val is None else codes[len(train) :]

    def _check_counts(self, X: Any, counts: Any) -> Any:
        if not self.needs_counts:
            return None
        if counts is None:
            raise UserError(f"{type(self).__name__} needs the raw counts of the cells.")
        counts = to_memory(counts) if isinstance(counts, Expression) else counts
        counts = check_array(counts, accept_sparse="csr", dtype=np.float32)
        if counts.shape != X.shape:
            raise UserError(f"counts have shape {counts.shape}, the cells {X.shape}.")
        return one_sparse_class(counts)

    def _set_panel(self, ranking: Any, scores: Any, data: TrainingData) -> None:
        """Set panel and scores; see :meth:`mmlab.selectors.training_data.TrainingData.panel`."""
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
