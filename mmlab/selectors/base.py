"""The contract that every marker selection method keeps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from mmlab.errors import UserError

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch

Layer = Literal["zscore", "log1p", "counts"]


class Selector(SelectorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A method that chooses ``n_markers`` genes; a scikit-learn feature selector.

    Class attributes tell the pipeline what to hand over: ``layer`` (the matrix that ``fit``
    reads), ``supervised`` (labels are needed), ``fits_on_validation`` (the validation cells
    join the training cells, because nothing is stopped on them), ``trains_in_epochs`` (its
    epochs can be watched and stopped).

    Attributes
    ----------
    panel_ : int64 array of shape (n_markers,)
        Distinct gene indices, best first.
    scores_ : float64 array of shape (n_genes,)
        Finite; higher is better. What it measures is the method's own matter.
    """

    layer: ClassVar[Layer] = "zscore"
    supervised: ClassVar[bool] = True
    fits_on_validation: ClassVar[bool] = True
    trains_in_epochs: ClassVar[bool] = False
    summary: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    n_markers: int
    seed: int
    panel_: NDArray[np.int64]
    scores_: NDArray[np.float64]

    def fit(self, X: Any, y: Any = None, *, X_val: Any = None, y_val: Any = None) -> Self:
        """Choose the panel.

        Parameters
        ----------
        X
            Cells (n_cells, n_genes) in the layer that the class declares; dense or sparse.
        y
            Class of each cell; needed by supervised methods, ignored by the others.
        X_val, y_val
            Validation cells, for methods that can stop early.

        Raises
        ------
        UserError
            More markers than genes, labels missing, fewer than two classes.
        """
        for _ in self.fit_epochs(X, y, X_val=X_val, y_val=y_val):
            pass
        return self

    def fit_epochs(
        self, X: Any, y: Any = None, *, X_val: Any = None, y_val: Any = None
    ) -> Iterator[Epoch]:
        """Like :meth:`fit`, an item an epoch; none for a method that has no epochs.

        ``panel_`` and ``scores_`` are valid after every item.
        """
        self.check_params()
        cells = self._check_cells(X)
        if X_val is not None:
            X_val = self._check_validation(cells, X_val, y_val)
        labels, val_labels = self._check_labels(cells, y, y_val)
        yield from self._run(cells, labels, X_val, val_labels)

    def check_params(self) -> None:
        """Raise one ``UserError`` with every parameter that is out of its range."""

    def reconstruct(self, X: Any) -> NDArray[np.float32] | None:
        """All genes of the z-scores ``X`` from the panel, by the method's own decoder.

        None for a method that has no decoder.
        """
        return None

    @abstractmethod
    def _run(
        self, X: Any, y: NDArray[np.int64] | None, X_val: Any, y_val: NDArray[np.int64] | None
    ) -> Iterator[Epoch]:
        """Set ``panel_`` and ``scores_`` from checked cells and class indices."""

    def _check_cells(self, X: Any) -> Any:
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float32)
        n_genes = X.shape[1]
        if not 1 <= self.n_markers <= n_genes:
            raise UserError(
                f"n_markers is {self.n_markers}, but the data have {n_genes} genes; "
                f"give a number from 1 to {n_genes}."
            )
        return _one_sparse_class(X)

    def _check_validation(self, X: Any, X_val: Any, y_val: Any) -> Any:
        X_val = check_array(X_val, accept_sparse="csr", dtype=np.float32)
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
        return _one_sparse_class(X_val)

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

    def _set_panel(self, panel: Any, scores: Any) -> None:
        self.panel_ = np.asarray(panel, dtype=np.int64)
        self.scores_ = np.asarray(scores, dtype=np.float64)

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


def _one_sparse_class(X: Any) -> Any:
    """Scanpy 1.11 knows scipy's sparse matrices, not its sparse arrays."""
    return sp.csr_matrix(X) if hasattr(X, "tocsr") else X


class DirectSelector(Selector):
    """A selector without epochs: one call gives the panel."""

    def _run(
        self, X: Any, y: NDArray[np.int64] | None, X_val: Any, y_val: NDArray[np.int64] | None
    ) -> Iterator[Epoch]:
        self._set_panel(*self._select(X, y))
        yield from ()

    @abstractmethod
    def _select(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        """Return the panel (best first) and a score a gene."""
