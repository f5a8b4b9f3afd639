"""The Python interface for scverse users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    groups: Mapping[str, str] | None = None,
    max_per_group: int | None = None,
    max_mean_counts: float | None = None,
    min_per_type: int | None = None,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
    copy: bool = False,
    **params: Scalar,
) -> AnnData | None:
    """Choose a gene panel for annotated cells.

    All cells are used: 7/8 train, 1/8 validate where the method can stop early. To learn how
    well such a panel does on cells that it never saw, run ``mmlab select``.

    Parameters
    ----------
    adata
        Raw counts (cells x genes) in ``X``, in a layer or in ``raw``; sparse or dense. A view is
        copied, and what it is a view of stays as it was.
    label_key
        Column of ``adata.obs`` with the cell types; at least 4 cells of each.
    n_markers
        Size of the panel.
    method
        A name of ``mmlab methods list``.
    layer
        The layer that holds the counts, or ``X``; by default they are looked for in the layers
        ``counts``, ``raw_counts`` and ``count``, then in ``X``, then in ``raw``.
    include, exclude
        Names of genes that the panel must hold, and must not hold.
    groups, max_per_group
        Group of a gene, by its name, and the most genes of a group that the panel may hold.
    max_mean_counts
        Genes with more counts a cell, on average over the training cells, are left out.
    min_per_type
        Fewest genes that mark each cell type: see :class:`mmlab.spec.constraints.Constraints`.
    weights
        Priority of a gene, 1 where it is not named: a gene of weight w that the method ranks r-th
        counts as r / w; 0 forbids it.
    seed
        Of everything random; the same seed gives the same panel.
    copy
        Return a changed copy instead of writing to ``adata``.
    **params
        Parameters of the method, e.g. ``hidden_size=128``.

    Returns
    -------
    None, or the copy. Written are ``var["mmlab_marker"]`` (bool), ``var["mmlab_score"]``
    (float, higher is better) and ``uns["mmlab"]`` (``panel``: gene names, best first;
    ``method``, ``n_markers``, ``label_key``, ``seed``, ``params``, ``version``, and
    ``constraints``, JSON of what the panel holds).

    Raises
    ------
    mmlab.errors.UserError
        Data or arguments that cannot be used, constraints that no panel holds; nothing is written
        then.

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
    from mmlab.spec.constraints import CONSTRAINT_FIELDS

    content = {
        "data": {"path": "memory", "label_key": label_key},
        "selector": method,
        "params": params,
        "n_markers": n_markers,
        "include": list(include),
        "exclude": list(exclude),
        "constraints": {
            "groups": dict(groups or {}),
            "max_per_group": max_per_group,
            "max_mean_counts": max_mean_counts,
            "min_per_type": min_per_type,
            "weights": dict(weights or {}),
        },
        "seed": seed,
    }
    selector, spec = _fit_on_all_cells(adata, label_key, layer, content)
    panel = selector.panel_
    target = adata.copy() if copy else adata
    with warnings.catch_warnings():
        # A view becomes cells of its own, as is meant: what it is a view of stays as it was.
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        target.var["mmlab_marker"] = selector.get_support()
    target.var["mmlab_score"] = selector.scores_
    target.uns["mmlab"] = {
        "panel": [str(target.var_names[gene]) for gene in panel],
        "method": method,
        "n_markers": n_markers,
        "label_key": label_key,
        "seed": seed,
        "params": dict(spec.params),
        "version": mmlab.__version__,
        # Gene names may hold what keys of an .h5ad file may not.
        "constraints": spec.model_dump_json(include=set(CONSTRAINT_FIELDS), exclude_defaults=True),
    }
    return target if copy else None


def _fit_on_all_cells(
    adata: AnnData, label_key: str, layer: str | None, content: dict[str, Any]
) -> tuple[Selector, TrialSpec]:
    """Fitted selector, and its specification with the defaults filled in."""
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
    from mmlab.trial.fit import make_selector, training_data

    usable = require_usable(adata, label_key, layer, "adata")
    if list(usable.var_names) != list(adata.var_names):
        raise UserError(
            f"adata: the raw counts are in raw, which has {usable.n_vars} genes of its own where "
            f"adata has {adata.n_vars}: call select_markers on adata.raw.to_adata()."
        )
    cells = make_cells(usable, label_key, name="adata", normalization="total", origin="memory")
    spec = resolve_spec(parse_spec(TrialSpec, content, "select_markers"), cells)
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
    """The panel that ``mmlab promote`` has made the champion of a dataset, ready for use.

    Parameters
    ----------
    dataset
        Its name, or that of the ``.h5ad`` file without its ending.
    n_markers
        Size of the panel.
    constraints
        Of a champion whose panels hold constraints: the key that ends the name of its model, which
        ``mmlab promote`` prints.
    tracking_uri
        MLflow store; default ``sqlite:///mlflow.db`` in this folder.

    Returns
    -------
    Its ``predict`` gives the types of new cells, ``reconstruct`` all their genes, ``markers`` the
    names of its genes.

    Raises
    ------
    mmlab.errors.UserError
        There is no champion, or its numbers have changed since it was registered.
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
