"""Check the types of arguments of the Python interface; each mistake is one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

from mmlab.errors import UserError


def require_anndata(value: Any, name: str, others: str = "") -> ad.AnnData:
    """Return ``value`` if it is an AnnData; raise ``UserError`` with the next step if it is not.

    ``others`` names further types that are valid, for the message.
    """
    if isinstance(value, ad.AnnData):
        return value
    kind = type(value).__name__
    if isinstance(value, str | Path):
        found = f"is the path {str(value)!r}: pass anndata.read_h5ad({str(value)!r})"
    elif kind == "MuData":
        found = f"is a MuData: pass one of its modalities, such as {name}['rna']"
    elif isinstance(value, pd.DataFrame):
        found = (
            "is a DataFrame: pass anndata.AnnData with the counts (cells x genes) in X and the "
            "cell types in obs"
        )
    else:
        found = f"is of type {kind}: pass an AnnData{others}"
    raise UserError(f"{name} {found}.")


def list_of_names(value: Iterable[str] | None, name: str) -> list[str]:
    """Return names as a list; None is the empty list, a single name is a mistake."""
    if isinstance(value, str):
        raise UserError(f"{name} is the single name {value!r}: pass a list, [{value!r}].")
    if value is None:
        return []
    if not isinstance(value, Iterable):
        raise UserError(f"{name} is of type {type(value).__name__}: pass a list of gene names.")
    return list(value)


def dict_of_genes(value: Any, name: str) -> dict[str, Any]:
    """Return a dict or a pandas Series as a dict by gene name; missing values are left out."""
    if value is None:
        return {}
    if isinstance(value, pd.Series):
        repeated = value.index[value.index.duplicated()]
        if len(repeated):
            raise UserError(f"{name} has the gene {repeated[0]!r} more than once.")
        return {str(gene): content for gene, content in value.dropna().items()}
    if isinstance(value, Mapping):
        return dict(value)
    raise UserError(
        f"{name} is of type {type(value).__name__}: pass a dict, or a pandas Series with the gene "
        "names as its index."
    )
