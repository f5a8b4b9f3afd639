"""Resolve a trial's specification: fill in defaults and report every problem at once."""

from __future__ import annotations

from mmlab.constraints.check import constraint_problems
from mmlab.constraints.gene_names import use_gene_names
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError, join_problems
from mmlab.preprocessing.label_noise import label_noise_problems
from mmlab.preprocessing.recipes import is_large
from mmlab.preprocessing.splits import replicate_split, split_problems
from mmlab.selectors import SELECTORS, get_selector, resolve_params
from mmlab.spec.trial import LabelNoise, TrialSpec
from mmlab.system.memory import available_memory
from mmlab.trial.fit_inputs import make_selector


def resolve_spec(spec: TrialSpec, cells: Cells) -> TrialSpec:
    """Return the specification with all defaults, checked against registries and data.

    Raises
    ------
    UserError
        The method is unknown, or the trial cannot run on these cells: the message lists all
        reasons.
    """
    get_selector(spec.selector)
    spec = full = use_gene_names(spec, cells)
    problems = []
    takes_all_genes = SELECTORS[spec.selector].takes_all_genes
    if takes_all_genes:
        spec = full = spec.model_copy(update={"n_markers": len(cells.genes)})
    if spec.noise.level == 0:
        # At level 0 the kind of noise makes no difference: all kinds share one digest.
        spec = full = spec.model_copy(update={"noise": LabelNoise()})
    try:
        params = resolve_params(spec.selector, spec.params)
        selector = make_selector(spec.model_copy(update={"params": params}), cells, 0)
        selector.check_params()
        params |= selector.data_dependent_params(len(cells.genes))
        full = spec.model_copy(update={"params": params})
    except UserError as error:
        problems.append(str(error))
    problems += constraint_problems(spec, cells, takes_all_genes=takes_all_genes)
    problems += label_noise_problems(spec.noise, cells.classes)
    problems += memory_problems(spec.selector, cells)
    n_genes = len(cells.genes)
    if spec.n_markers > n_genes:
        problems.append(
            f"n_markers is {spec.n_markers}, but {cells.name} has {n_genes} genes; give a "
            f"number from 1 to {n_genes}."
        )
    too_small = split_problems(cells.y, cells.classes)
    problems += too_small
    if not too_small:
        try:
            replicate_split(spec, cells, 0)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(f"{spec.selector} on {cells.name}: {join_problems(problems)}")
    return full


def memory_problems(name: str, cells: Cells) -> list[str]:
    """Return a message if the method needs all cells in memory and they do not fit, else none."""
    if name not in SELECTORS or SELECTORS[name].reads_from_disk:
        return []
    n_cells, n_genes = cells.adata.shape
    # float32 z-scores, twice: the method makes a working copy.
    needed = 2 * 4 * n_cells * n_genes
    free = available_memory()
    if not is_large(cells.adata.shape) or needed < free:
        return []
    alternatives = ", ".join(n for n, selector in SELECTORS.items() if selector.reads_from_disk)
    return [
        f"it needs all {n_cells:,} cells x {n_genes:,} genes in memory, about "
        f"{needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; these methods read the cells "
        f"from disk: {alternatives}"
    ]
