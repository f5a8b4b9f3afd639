"""Names of genes from a column of ``var`` instead of its index."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmlab.datasets.io.cell_source import CellSource, CountLocation
from mmlab.datasets.io.count_search import quote_names
from mmlab.datasets.io.tables import as_names

_ENSEMBL = re.compile(r"ENS[A-Z]{0,6}G\d{11}(\.\d+)?")
_SYMBOLS = re.compile(r"(gene_?)?(symbols?|names?|short_name)|feature_name", re.IGNORECASE)


@dataclass(frozen=True)
class GeneNames:
    """Names of the genes, and what they were named before.

    Attributes
    ----------
    names
        Names to use, shape (n_genes,).
    ids
        Names in the index of ``var``, shape (n_genes,); None if these are used.
    problems, notes
        Reasons why the names cannot be used, and what a user should know, one sentence each.
    """

    names: pd.Index
    ids: pd.Index | None
    problems: list[str]
    notes: list[str]


def read_gene_names(source: CellSource, location: CountLocation, column: str | None) -> GeneNames:
    """Return the names of the genes of a location.

    Parameters
    ----------
    column
        Column of ``var`` with the names; None takes the index of ``var``.
    """
    ids = location.read_gene_names()
    if column is None:
        return GeneNames(ids, None, [], _symbol_hint(ids, source.var_columns))
    if (n_columns := source.var_columns.count(column)) > 1:
        problem = f"var has {n_columns} columns with the name {column!r}: keep one of them"
        return GeneNames(ids, None, [problem], [])
    symbols = location.read_gene_column(column)
    if symbols is None and (of_var := source.X.read_gene_column(column)) is not None:
        # raw.var often has no columns: its genes are looked up in var.
        by_id = dict(zip(source.gene_names, as_names(of_var), strict=False))
        symbols = [by_id.get(gene, "") for gene in ids]
    if symbols is None or len(symbols) != len(ids):
        return GeneNames(ids, None, [_column_problem(source, column, symbols)], [])
    return _rename(ids, as_names(symbols), f"var[{column!r}]")


def _rename(ids: pd.Index, symbols: pd.Index, where: str) -> GeneNames:
    """Name genes by symbol; by id without a symbol; by symbol and id if genes share a symbol.

    SYMBOL_ID is the convention of CELLxGENE's ``feature_name``.
    """
    texts, identifiers = symbols.str.strip().to_numpy(dtype=object), ids.to_numpy(dtype=object)
    unnamed = texts == ""
    shared = pd.Index(texts).duplicated(keep=False) & ~unnamed
    names = np.where(unnamed, identifiers, texts)
    names[shared] = [
        f"{symbol}_{identifier}"
        for symbol, identifier in zip(texts[shared], identifiers[shared], strict=True)
    ]
    notes = []
    if shared.any():
        n_symbols = len(set(texts[shared]))
        notes.append(
            f"{n_symbols} symbols of {where} occur more than once: their {shared.sum()} genes are "
            f"named by symbol and identifier, such as {quote_names(names[shared][:1])}"
        )
    if unnamed.any():
        notes.append(
            f"{unnamed.sum()} genes have no symbol in {where} and keep their identifier, such as "
            f"{quote_names(names[unnamed][:1])}"
        )
    return GeneNames(pd.Index(names, dtype=object), ids, [], notes)


def _symbol_hint(ids: pd.Index, columns: list[str]) -> list[str]:
    """Return a sentence that names the column with the symbols of Ensembl identifiers."""
    symbols = [name for name in columns if _SYMBOLS.fullmatch(name)]
    if not symbols:
        return []
    n_identifiers = sum(_ENSEMBL.fullmatch(str(gene)) is not None for gene in ids)
    if n_identifiers <= len(ids) / 2:
        return []
    return [
        "genes are named by Ensembl identifiers, so panels will list identifiers; "
        f"var[{symbols[0]!r}] seems to contain the symbols: pass --gene-names {symbols[0]}"
    ]


def _column_problem(source: CellSource, column: str, symbols: object) -> str:
    if symbols is not None:
        return f"var[{column!r}] does not have one name per gene"
    near = difflib.get_close_matches(column, source.var_columns, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    existing = ", ".join(source.var_columns) or "none"
    return f"gene_names {column!r} is not a column of var (columns: {existing}){hint}"
