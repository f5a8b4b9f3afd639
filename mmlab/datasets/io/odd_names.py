"""Sentences about labels and genes that are probably not cell types or genes."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from mmlab.datasets.io.cell_source import CellSource
from mmlab.datasets.io.count_search import quote_names
from mmlab.datasets.io.hdf5 import InvalidFileError

#: Labels of cells without a type, in lower case with single spaces.
_NO_TYPE = re.compile(
    r"(unknown|unassigned|not assigned|unclassified|unannotated|undetermined|undefined|"
    r"unlabell?ed|ambiguous|doublets?|multiplets?|low quality|debris|artifacts?)( cells?)?( ?\d+)?"
)
#: Column of ``var`` in which Cell Ranger stores what was measured, and its value for antibodies.
_FEATURE_TYPES, _ANTIBODY = "feature_types", "Antibody Capture"
#: Names of antibodies by the conventions of CITE-seq.
_ANTIBODY_NAME = re.compile(
    r"(AB|ADT|HTO|CITE)[_-].+|.+[_-](TotalSeq[A-D]?|ADT)([_-]?[A-D])?", re.IGNORECASE
)
_MONTH = r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
#: What spreadsheets make of names such as MARCH1, SEPT2 and DEC1.
_DATE = re.compile(rf"\d{{1,2}}-{_MONTH}|{_MONTH}-\d{{1,2}}|\d{{4}}-\d\d-\d\d", re.IGNORECASE)


def find_odd_names(
    genes: pd.Index, labels: pd.Series | None, source: CellSource, label_key: str
) -> list[str]:
    """Return a sentence each for odd labels, antibodies among the genes, and dates as genes.

    Parameters
    ----------
    genes
        Names of the genes.
    labels
        One class name per used cell; None if there are no classes.
    source
        The cells.
    label_key
        The ``obs`` column with the classes.
    """
    sentences = [] if labels is None else _odd_labels(labels, label_key)
    is_antibody, reason = _find_antibodies(genes, source)
    if is_antibody.any():
        sentences.append(
            f"{is_antibody.sum()} of {len(genes)} genes look like antibodies ({reason}), first "
            f"{quote_names(genes[is_antibody])}: remove them if panels are to contain genes only"
        )
    is_date = np.array([_DATE.fullmatch(str(gene)) is not None for gene in genes], dtype=bool)
    if is_date.any():
        sentences.append(
            f"{is_date.sum()} gene names are dates, first {quote_names(genes[is_date])}: a "
            "spreadsheet has changed names such as MARCH1 or SEPT2"
        )
    return sentences


def _odd_labels(labels: pd.Series, label_key: str) -> list[str]:
    names = pd.Index(labels.unique())
    simple = [" ".join(re.split(r"[\s_-]+", str(name).strip().lower())) for name in names]
    odd = names[[_NO_TYPE.fullmatch(name) is not None for name in simple]]
    if not len(odd):
        return []
    return [
        f"{labels.isin(odd).sum()} cells of obs[{label_key!r}] have the odd label "
        f"{quote_names(odd)}: it is treated as a cell type; remove these cells if it is none"
    ]


def _find_antibodies(
    genes: pd.Index, source: CellSource
) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], str]:
    """Return which genes are antibodies, and how they were recognised."""
    is_unique = source.var_columns.count(_FEATURE_TYPES) == 1
    if is_unique and len(genes) == len(source.gene_names):
        try:
            types = source.read_var_column(_FEATURE_TYPES)
        except InvalidFileError:
            types = pd.Series(dtype=object)
        is_antibody = types.astype(object).to_numpy() == _ANTIBODY
        if len(types) == len(genes) and is_antibody.any():
            return is_antibody, f"var['{_FEATURE_TYPES}'] is '{_ANTIBODY}'"
    by_name = [_ANTIBODY_NAME.fullmatch(str(gene)) is not None for gene in genes]
    return np.array(by_name, dtype=bool), "by their names"
