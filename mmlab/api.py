"""The Python interface for scverse users."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData

    from mmlab.config import Scalar


def select_markers(
    adata: AnnData,
    label_key: str,
    n_markers: int = 50,
    *,
    method: str = "markermap_supervised",
    layer: str | None = None,
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
        Raw counts (cells x genes) in ``X`` or in ``layer``; sparse or dense.
    label_key
        Column of ``adata.obs`` with the cell types; at least 4 cells of each.
    n_markers
        Size of the panel.
    method
        A name of ``mmlab methods list``.
    layer
        The layer that holds the counts; default ``X``.
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
    ``method``, ``n_markers``, ``label_key``, ``seed``, ``params``, ``version``).

    Raises
    ------
    mmlab.errors.UserError
        Data or arguments that cannot be used; nothing is written then.

    Examples
    --------
    >>> import mmlab
    >>> from mmlab.datasets import DATASETS
    >>> adata = DATASETS["pbmc68k_reduced"].load()
    >>> mmlab.select_markers(adata, "bulk_labels", n_markers=10, method="scanpy_t_test")
    >>> adata.var_names[adata.var["mmlab_marker"]].size
    10
    """
    import mmlab
    from mmlab.pipeline import select_from_all_cells

    panel, scores, resolved = select_from_all_cells(
        adata, label_key, n_markers, method=method, layer=layer, seed=seed, params=params
    )
    target = adata.copy() if copy else adata
    is_marker = [False] * target.n_vars
    for gene in panel:
        is_marker[gene] = True
    target.var["mmlab_marker"] = is_marker
    target.var["mmlab_score"] = scores
    target.uns["mmlab"] = {
        "panel": [str(target.var_names[gene]) for gene in panel],
        "method": method,
        "n_markers": n_markers,
        "label_key": label_key,
        "seed": seed,
        "params": dict(resolved),
        "version": mmlab.__version__,
    }
    return target if copy else None
