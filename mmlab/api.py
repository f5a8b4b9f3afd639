"""The Python interface: select markers in an AnnData, load a registered champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from mmlab.model import Model
    from mmlab.spec.base import Scalar


def select_markers(
    adata: AnnData,
    label_key: str,
    n_markers: int = 50,
    *,
    method: str = "markermap_supervised",
    layer: str | None = None,
    min_cells_per_type: int | None = None,
    drop_unlabelled: bool = False,
    gene_names: str | None = None,
    round_counts: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    groups: Mapping[str, str] | pd.Series | None = None,
    max_per_group: int | None = None,
    max_mean_counts: float | None = None,
    min_per_type: int | None = None,
    weights: Mapping[str, float] | pd.Series | None = None,
    seed: int = 0,
    copy: bool = False,
    **params: Scalar,
) -> AnnData | None:
    """Select a gene panel for annotated cells.

    All cells are used: 7/8 for training, 1/8 for validation if the method can stop early. To
    evaluate such a panel on held-out cells, run ``mmlab select``.

    Parameters
    ----------
    adata
        Raw counts (cells x genes) in ``X``, in a layer or in ``raw``; sparse or dense. A view is
        copied, and its parent is not changed.
    label_key
        Column of ``adata.obs`` with the cell types; at least 4 cells of each.
    n_markers
        Number of genes in the panel.
    method
        A name of ``mmlab methods list``.
    layer
        The layer that holds the counts, or ``X`` or ``raw``. By default the layers ``counts``,
        ``raw_counts`` and ``count``, then ``X``, then ``raw`` are searched.
    min_cells_per_type
        Leave out cell types with fewer cells than this.
    drop_unlabelled
        Leave out cells without a label: NaN, empty, or a text such as NA.
    gene_names
        Column of ``var`` with the gene names to use instead of ``var_names``. Genes may be
        included and excluded by either name.
    round_counts
        Round fractional counts (ambient-corrected or estimated: SoupX, CellBender, RSEM, salmon)
        to integers; without it they are refused.
    include, exclude
        Names of genes that the panel must, and must not, include.
    groups, max_per_group
        Group of each gene, by the gene's name (a dict or a pandas Series), and the maximum number
        of genes per group.
    max_mean_counts
        Maximum mean of a gene's raw counts over the training cells.
    min_per_type
        Minimum number of markers per cell type: see :class:`mmlab.spec.constraints.Constraints`.
    weights
        Priority of each gene, 1 by default: a gene of weight w that the method ranks r-th counts
        as r / w; 0 excludes it.
    seed
        Seed of all random numbers; the same seed gives the same panel.
    copy
        Return a copy with the result instead of writing to ``adata``.
    **params
        Parameters of the method, e.g. ``hidden_size=128``.

    Returns
    -------
    None, or the copy. The result is in ``var["mmlab_marker"]`` (bool), ``var["mmlab_score"]``
    (float, higher is better) and ``uns["mmlab"]`` (``panel``: gene names, best first, and with
    ``gene_names`` their names in ``var_names`` as ``gene_ids``; ``method``, ``n_markers``,
    ``label_key``, ``seed``, ``params``, ``version``, and ``constraints``: the panel constraints as
    JSON). Left-out cells, and labels and genes that look odd, are reported on stderr.

    Raises
    ------
    mmlab.errors.UserError
        Data or arguments that cannot be used, or constraints that no panel satisfies; nothing is
        written then.

    Examples
    --------
    >>> import mmlab
    >>> from mmlab.datasets import DATASETS
    >>> adata = DATASETS["pbmc68k_reduced"].load()
    >>> mmlab.select_markers(adata, "bulk_labels", n_markers=10, method="scanpy_t_test")
    >>> adata.var_names[adata.var["mmlab_marker"]].size
    10
    """
    import warnings

    from anndata import ImplicitModificationWarning

    import mmlab
    from mmlab.datasets.io.python_inputs import dict_of_genes, list_of_names, require_anndata
    from mmlab.spec.constraints import CONSTRAINT_FIELDS
    from mmlab.trial.all_cells import fit_on_all_cells

    require_anndata(adata, "adata")
    content = {
        "data": {
            "path": "memory",
            "label_key": label_key,
            "layer": layer,
            "min_cells_per_type": min_cells_per_type,
            "drop_unlabelled": drop_unlabelled,
            "gene_names": gene_names,
            "round_counts": round_counts,
        },
        "selector": method,
        "params": params,
        "n_markers": n_markers,
        "include": list_of_names(include, "include"),
        "exclude": list_of_names(exclude, "exclude"),
        "constraints": {
            "groups": dict_of_genes(groups, "groups"),
            "max_per_group": max_per_group,
            "max_mean_counts": max_mean_counts,
            "min_per_type": min_per_type,
            "weights": dict_of_genes(weights, "weights"),
        },
        "seed": seed,
    }
    selector, spec, cells = fit_on_all_cells(adata, content)
    panel = selector.panel_
    target = adata.copy() if copy else adata
    with warnings.catch_warnings():
        # Writing to a view copies it, as intended: its parent is not changed.
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        target.var["mmlab_marker"] = selector.get_support()
    target.var["mmlab_score"] = selector.scores_
    target.uns["mmlab"] = {
        "panel": cells.genes[panel].tolist(),
        **({} if cells.gene_ids is None else {"gene_ids": cells.gene_ids[panel].tolist()}),
        "method": method,
        "n_markers": spec.n_markers,
        "label_key": label_key,
        "seed": spec.seed,
        "params": dict(spec.params),
        "version": mmlab.__version__,
        # As JSON: gene names may hold characters that keys of an .h5ad file may not.
        "constraints": spec.model_dump_json(include=set(CONSTRAINT_FIELDS), exclude_defaults=True),
    }
    return target if copy else None


def load_champion(
    dataset: str,
    n_markers: int = 50,
    *,
    constraints: str = "",
    tracking_uri: str | None = None,
) -> Model:
    """Load the champion of a dataset: the fitted panel that ``mmlab promote`` registered.

    Parameters
    ----------
    dataset
        Name of the dataset, or of the ``.h5ad`` file without its extension.
    n_markers
        Size of the panel.
    constraints
        Key of the panel constraints of a constrained champion: the last part of the model's name,
        which ``mmlab promote`` prints.
    tracking_uri
        MLflow tracking server or database; default the environment variable
        ``MLFLOW_TRACKING_URI``, else ``sqlite:///mlflow.db`` in this folder.

    Returns
    -------
    The fitted panel: ``predict`` returns the types of new cells, ``reconstruct`` the expression of
    all genes in them, ``markers`` the names of the panel's genes.

    Raises
    ------
    mmlab.errors.UserError
        There is no champion, or its files have changed since it was registered.
    """
    from mmlab.errors import UserError
    from mmlab.tracking import TrackingStore, find_champion, load_model

    store = TrackingStore(tracking_uri)
    store.require_reachable()
    champion = find_champion(store, dataset, n_markers, constraints) if store.exists else None
    if champion is None:
        raise UserError(
            f"{store.uri} holds no champion of {n_markers} genes for {dataset!r}"
            + (f" with constraints {constraints!r}" if constraints else "")
            + ": search with mmlab tune, then mmlab promote."
        )
    return load_model(store, champion)
