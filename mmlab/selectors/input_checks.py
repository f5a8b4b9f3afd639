"""Checks of the arguments of ``Selector.fit``: cells, labels, raw counts, gene lists, rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils.validation import check_array, validate_data

from mmlab.constraints.solver import PanelRules, solve_panel
from mmlab.errors import UserError, join_problems
from mmlab.preprocessing.expression import Expression, to_memory
from mmlab.selectors.training_data import Indices

if TYPE_CHECKING:
    from mmlab.selectors.base import Selector


def check_cells(selector: Selector, X: Any) -> Any:
    """Return the training cells as float32, dense or CSR, and set ``n_features_in_``.

    An :class:`~mmlab.preprocessing.expression.Expression` is read into memory, unless the method
    reads its cells from disk.

    Raises
    ------
    UserError
        ``n_markers`` is not between 1 and the number of genes.
    """
    if isinstance(X, Expression):
        selector.n_features_in_ = X.shape[1]
        X = X if selector.reads_from_disk else to_memory(X)
    else:
        X = as_csr_matrix(validate_data(selector, X, accept_sparse="csr", dtype=np.float32))
    n_genes = X.shape[1]
    if not 1 <= selector.n_markers <= n_genes:
        raise UserError(
            f"n_markers is {selector.n_markers}, but the data have {n_genes} genes; "
            f"give a number from 1 to {n_genes}."
        )
    return X


def check_validation_cells(selector: Selector, X_val: Any, y_val: Any, n_genes: int) -> Any:
    """Return the validation cells as float32, dense or CSR, or as an ``Expression``.

    Raises
    ------
    UserError
        The number of genes differs from that of the training cells, there is not one label per
        cell, or a supervised method gets no labels.
    """
    if isinstance(X_val, Expression):
        X_val = X_val if selector.reads_from_disk else to_memory(X_val)
    else:
        X_val = as_csr_matrix(check_array(X_val, accept_sparse="csr", dtype=np.float32))
    if X_val.shape[1] != n_genes:
        raise UserError(
            f"the validation cells have {X_val.shape[1]} genes, but the training cells have "
            f"{n_genes}."
        )
    if y_val is None and selector.supervised:
        raise UserError(
            f"{type(selector).__name__} is supervised: its validation cells need labels; "
            "pass y_val."
        )
    if y_val is not None and len(y_val) != X_val.shape[0]:
        raise UserError(
            f"there are {X_val.shape[0]} validation cells but {len(y_val)} labels in y_val; "
            "pass one label per cell."
        )
    return X_val


def encode_labels(
    selector: Selector, y: Any, y_val: Any, n_cells: int
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Return the class indices of training and validation cells, and set ``classes_``.

    ``classes_`` contains the sorted labels of training and validation cells together; an index
    is a position in it. Without labels both results are None.

    Raises
    ------
    UserError
        There is not one label per cell, a label is missing, or a supervised method gets no labels
        or a single class.
    """
    if y is None:
        if selector.supervised:
            raise UserError(
                f"{type(selector).__name__} is supervised: it needs one label per cell; pass y."
            )
        return None, None
    if len(y) != n_cells:
        raise UserError(f"there are {n_cells} cells but {len(y)} labels; pass one label per cell.")
    train = _labels(y, "y")
    validation = train[:0] if y_val is None else _labels(y_val, "y_val")
    selector.classes_, codes = np.unique(np.concatenate([train, validation]), return_inverse=True)
    if selector.supervised and len(selector.classes_) < 2:
        raise UserError(
            f"all labels are {str(selector.classes_[0])!r}, but {type(selector).__name__} needs "
            "at least two classes."
        )
    codes = codes.astype(np.int64)
    return codes[: len(train)], None if y_val is None else codes[len(train) :]


def _labels(values: Any, name: str) -> NDArray[Any]:
    """Return labels, one per cell, as an array of shape (n_cells,); raise for missing ones."""
    labels = np.asarray(values)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.ravel()
    if labels.ndim != 1:
        raise UserError(
            f"{name} has the shape {labels.shape}: pass one label per cell, of one-hot labels "
            f"{name}.argmax(axis=1)."
        )
    missing = np.flatnonzero(pd.isna(labels))
    if len(missing):
        raise UserError(
            f"{name} has no label (NaN or None) for {len(missing)} of {len(labels)} cells, first "
            f"at position {missing[0]}: label these cells or remove them."
        )
    return labels


def check_counts(selector: Selector, counts: Any, shape: tuple[int, int]) -> Any:
    """Return the raw counts as float32, dense or CSR; None for a method that does not need them.

    Raises
    ------
    UserError
        The counts are missing, or their shape is not that of the training cells.
    """
    if not selector.needs_counts:
        return None
    if counts is None:
        raise UserError(
            f"{type(selector).__name__} needs the raw counts of the training cells; pass counts."
        )
    counts = to_memory(counts) if isinstance(counts, Expression) else counts
    counts = check_array(counts, accept_sparse="csr", dtype=np.float32)
    if counts.shape != shape:
        raise UserError(f"counts have shape {counts.shape}, but the training cells {shape}.")
    return as_csr_matrix(counts)


def check_gene_lists(
    n_genes: int,
    n_markers: int,
    include: Sequence[int] | Indices,
    exclude: Sequence[int] | Indices,
) -> tuple[Indices, Indices]:
    """Return the gene indices to include and to exclude, without duplicates, in the given order.

    Raises
    ------
    UserError
        One error with all problems: indices out of range, genes in both lists, lists that leave
        no panel of ``n_markers`` genes.
    """
    included, excluded = (_distinct(genes) for genes in (include, exclude))
    problems = [
        f"{name} contains {gene}, but gene indices go from 0 to {n_genes - 1}"
        for name, genes in (("include", included), ("exclude", excluded))
        for gene in genes
        if not 0 <= gene < n_genes
    ]
    both = np.intersect1d(included, excluded)
    if len(both):
        problems.append(f"genes {both.tolist()} are both included and excluded")
    if len(included) > n_markers:
        problems.append(f"include has {len(included)} genes, but the panel only {n_markers}")
    if n_genes - len(excluded) < n_markers:
        problems.append(
            f"exclude leaves {n_genes - len(excluded)} of {n_genes} genes, fewer than the "
            f"{n_markers} of the panel"
        )
    if problems:
        raise UserError(join_problems(problems))
    return included, excluded


def check_rules_feasible(
    rules: PanelRules | None, n_genes: int, n_markers: int, include: Indices, exclude: Indices
) -> None:
    """Raise ``UserError`` if no panel of ``n_markers`` genes satisfies the rules."""
    if rules is None:
        return
    if len(rules.groups) != n_genes:
        raise UserError(
            f"the rules are for {len(rules.groups)} genes, but the cells have {n_genes}."
        )
    free = np.setdiff1d(np.arange(n_genes), [*include, *exclude])
    if solve_panel(rules, free, n_markers - len(include), include) is None:
        raise UserError(f"no panel of {n_markers} genes satisfies all rules.")


def as_csr_matrix(X: Any) -> Any:
    """Return sparse input as ``csr_matrix``, dense input as it is.

    Scanpy 1.11 supports scipy's sparse matrices, but not its sparse arrays.
    """
    return sp.csr_matrix(X) if hasattr(X, "tocsr") else X


def _distinct(genes: Sequence[int] | Indices) -> Indices:
    """Return gene indices without duplicates, in the given order."""
    return np.array(list(dict.fromkeys(int(gene) for gene in genes)), dtype=np.int64)
