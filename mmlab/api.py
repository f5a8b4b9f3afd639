"""The Python interface: select markers in an AnnData, load a registered champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from mmlab.model import Model
    from mmlab.selectors import Selector
    from mmlab.spec.base import Scalar
    from mmlab.spec.trial import TrialSpec


def select_markers(
    adata: AnnData,
    label_key: str,
    n_markers: int = 50,
    *,
    method: str = "markermap_supervised",
    layer: str | None = None,
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
    (float, higher is better) and ``uns["mmlab"]`` (``panel``: gene names, best first;
    ``method``, ``n_markers``, ``label_key``, ``seed``, ``params``, ``version``, and
    ``constraints``: the panel constraints as JSON).

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

    require_anndata(adata, "adata")
    content = {
        "data": {
            "path": "memory",
            "label_key": label_key,
            "layer": layer,
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
    selector, spec = _fit_on_all_cells(adata, content)
    panel = selector.panel_
    target = adata.copy() if copy else adata
    with warnings.catch_warnings():
        # Writing to a view copies it, as intended: its parent is not changed.
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        target.var["mmlab_marker"] = selector.get_support()
    target.var["mmlab_score"] = selector.scores_
    target.uns["mmlab"] = {
        "panel": [str(target.var_names[gene]) for gene in panel],
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


def _fit_on_all_cells(adata: AnnData, content: dict[str, Any]) -> tuple[Selector, TrialSpec]:
    """Return the fitted selector, and the specification with all defaults."""
    import numpy as np

    from mmlab.constraints.measure import measure_genes, needs_cells, resolve_constraints
    from mmlab.datasets.cells import make_cells
    from mmlab.datasets.io.checks import require_usable
    from mmlab.errors import UserError
    from mmlab.preprocessing.random_streams import Stream, random_stream
    from mmlab.preprocessing.recipes import prepare_layers
    from mmlab.preprocessing.splits import Split, partition
    from mmlab.spec.protocol import MIN_CELLS_PER_PART
    from mmlab.spec.trial import TrialSpec
    from mmlab.spec.yaml import parse_spec
    from mmlab.system.threads import limit_threads
    from mmlab.trial.defaults import resolve_spec
    from mmlab.trial.fit_inputs import make_selector, training_data

    requested = parse_spec(TrialSpec, content, "select_markers")
    data, label_key = requested.data, str(requested.data.label_key)
    usable = require_usable(adata, label_key, data.layer, "adata", round_counts=data.round_counts)
    if list(usable.var_names) != list(adata.var_names):
        raise UserError(
            f"adata: the raw counts are in raw, which has {usable.n_vars} genes of its own where "
            f"adata has {adata.n_vars}: call select_markers on adata.raw.to_adata()."
        )
    cells = make_cells(usable, label_key, name="adata", normalization="total", origin="memory")
    spec = resolve_spec(requested, cells)
    n = len(cells.y)
    sizes = (n - n // 8, n // 8)
    rng = random_stream(spec.seed, 0, Stream.SPLIT)
    train, validation = partition(cells.y, np.arange(n), sizes, MIN_CELLS_PER_PART[:2], rng)
    measured = None
    if needs_cells(spec.constraints):
        measured = measure_genes(cells.adata.X, train, cells.y, len(cells.classes))
    panel_constraints = resolve_constraints(spec, cells, measured)
    layers = prepare_layers(cells.adata, cells.normalization, spec.recipe, train)
    selector = make_selector(spec, cells, 0)
    split = Split(train, validation, test=validation[:0])
    with limit_threads(1):
        for _ in selector.run(training_data(selector, layers, cells.y, split, panel_constraints)):
            pass
    return selector, spec


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
        MLflow tracking server or database; default ``sqlite:///mlflow.db`` in this folder.

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
    champion = find_champion(store, dataset, n_markers, constraints) if store.exists else None
    if champion is None:
        raise UserError(
            f"{store.uri} holds no champion of {n_markers} genes for {dataset!r}"
            + (f" with constraints {constraints!r}" if constraints else "")
            + ": search with mmlab tune, then mmlab promote."
        )
    return load_model(store, champion)
