"""Labels of the cells of a file, and which of the cells are used."""

from __future__ import annotations

import difflib

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmlab.datasets.io.cell_source import CellSource
from mmlab.datasets.io.count_search import quote_names
from mmlab.datasets.io.hdf5 import InvalidFileError
from mmlab.datasets.io.label_columns import measurement_problem
from mmlab.spec.protocol import MIN_CELLS_PER_CLASS
from mmlab.spec.trial import FileOptions

#: Labels that usually stand for a missing label, in lower case.
MISSING_LABELS = {"nan", "na", "n/a", "none", "null", "<na>"}
#: Left-out types that a sentence names.
_LISTED = 10


def is_unlabelled(labels: pd.Series, options: FileOptions) -> NDArray[np.bool_]:
    """Mark cells without a label, shape (n_cells,).

    If these cells are to be left out, a text such as 'nan' or 'NA' is a missing label, too.
    """
    texts = labels.str.strip()
    missing = texts == ""
    if options.drop_unlabelled:
        missing |= texts.str.lower().isin(MISSING_LABELS)
    return np.asarray(missing, dtype=bool)


def keep_cells(
    labels: pd.Series, options: FileOptions, where: str = "the labels"
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which cells are used, shape (n_cells,), and a sentence per kind of left-out cells.

    Parameters
    ----------
    labels
        Class name of each cell as text, "" where it is missing.
    where
        Name of the labels for the sentences.
    """
    kept, notes = np.ones(len(labels), dtype=bool), []
    unlabelled = is_unlabelled(labels, options)
    if options.drop_unlabelled and unlabelled.any():
        kept &= ~unlabelled
        notes.append(f"left out: {unlabelled.sum()} of {len(labels)} cells, which have no label")
    if options.min_cells_per_type is not None:
        sizes = labels[~unlabelled].value_counts()
        rare = sizes[sizes < options.min_cells_per_type].sort_values(kind="stable")
        if len(rare):
            kept &= ~labels.isin(rare.index).to_numpy()
            listed = ", ".join(f"{quote_names([name])} {n}" for name, n in rare[:_LISTED].items())
            more = f" and {len(rare) - _LISTED} more types" if len(rare) > _LISTED else ""
            notes.append(
                f"left out: {len(rare)} of {len(sizes)} types of {where} ({rare.sum()} of "
                f"{len(labels)} cells), with fewer than {options.min_cells_per_type} cells each: "
                f"{listed}{more}"
            )
    return kept, notes


def read_labels(
    source: CellSource, label_key: str, options: FileOptions
) -> tuple[list[str], pd.Series | None]:
    """Return the problems of the label column, and the class of each cell; None if there are any.

    A missing label is "". Integers that are stored as floating-point numbers, because some are
    missing, are integers if the cells without a label are to be left out.
    """
    where = f"obs[{label_key!r}]"
    if label_key not in source.obs_columns:
        near = difflib.get_close_matches(label_key, source.obs_columns, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        existing = ", ".join(source.obs_columns) or "none"
        problem = f"label_key {label_key!r} is not a column of obs (columns: {existing}){hint}"
        return [problem], None
    if (n_columns := source.obs_columns.count(label_key)) > 1:
        problem = f"obs has {n_columns} columns with the name {label_key!r}: keep one of them"
        return [problem], None
    try:
        column = source.read_obs_column(label_key)
    except InvalidFileError as error:
        return error.problems, None
    n_cells = len(source.cell_names)
    if len(column) != n_cells:
        problem = f"{where} has {len(column)} labels for {n_cells} cells; one per cell is needed"
        return [problem], None
    if measured := measurement_problem(column, label_key, where, source):
        return [measured], None
    if _has_floats(column):
        integers = _without_fractions(column)
        if integers is not None and options.drop_unlabelled:
            return [], integers
        advice = "if these are cluster numbers, convert them to text"
        if integers is not None:
            advice = (
                f"if these are cluster numbers, {column.isna().sum()} of {n_cells} cells have "
                "none: leave these out with --drop-unlabelled, or convert the numbers to text"
            )
        problem = (
            f"{where} contains floating-point numbers (such as {column.dropna().iloc[0]}), not "
            f"cell types; {advice}"
        )
        return [problem], None
    return [], column.astype(object).where(column.notna(), "").astype(str)


def label_problems(
    labels: pd.Series, kept: NDArray[np.bool_], cell_names: pd.Index, where: str
) -> list[str]:
    """Return why the used cells cannot be split and classified, one sentence each."""
    missing = np.asarray(labels.str.strip() == "") & kept
    problems = []
    if missing.any():
        problems.append(
            f"{where} has no label for {missing.sum()} of {len(labels)} cells, first "
            f"{quote_names(cell_names[missing])}: label these cells, or leave them out "
            "with --drop-unlabelled"
        )
    sizes = labels[kept & ~missing].value_counts()
    if len(sizes) < 2:
        found = f"only the type {quote_names(sizes.index)}" if len(sizes) else "no cell type"
        problems.append(f"{where} has {found}; at least two types are needed")
    small = sizes[sizes < MIN_CELLS_PER_CLASS]
    if len(sizes) > sizes.sum() / 2 > 0:
        problems.append(
            f"{where} has {len(sizes)} different values for {sizes.sum()} cells, such as "
            f"{quote_names(sizes.index[:2])}: is label_key the column of the cell types?"
        )
    elif len(small):
        listed = ", ".join(
            f"{quote_names([name])} has {count}" for name, count in small[:5].items()
        )
        problems.append(
            f"every cell type of {where} needs at least {MIN_CELLS_PER_CLASS} cells to be split "
            f"into train, validation and test: {listed}"
            + (f" and {len(small) - 5} more types" if len(small) > 5 else "")
            + "; merge small types with others, or leave these types out with "
            f"--min-cells-per-type {MIN_CELLS_PER_CLASS}"
        )
    return problems


def _has_floats(column: pd.Series) -> bool:
    if column.isna().all():
        return False
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    kind = pd.api.types.infer_dtype(values, skipna=True)
    return kind in ("floating", "mixed-integer-float")


def _without_fractions(column: pd.Series) -> pd.Series | None:
    """Return the numbers of a column as text without ".0", "" where they are missing.

    None if no number is missing, or if one of them is no integer that floats represent exactly.
    """
    numbers = column.dropna().astype(float)
    if len(numbers) == len(column) or not ((numbers % 1 == 0) & (numbers.abs() < 2**53)).all():
        return None
    texts = ["" if pd.isna(number) else str(int(number)) for number in column]
    return pd.Series(texts, index=column.index)
