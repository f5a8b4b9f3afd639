"""A trial's specification with every default filled in, or everything that is wrong with it."""

from __future__ import annotations

from mmlab.constraints.check import constraint_problems
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.preprocessing.label_noise import label_noise_problems
from mmlab.preprocessing.recipes import is_large
from mmlab.preprocessing.splits import replicate_split, split_problems
from mmlab.selectors import SELECTORS, resolve_params
from mmlab.spec.trial import LabelNoise, TrialSpec
from mmlab.system.memory import free_memory
from mmlab.trial.fit import make_selector


def resolve_spec(spec: TrialSpec, cells: Cells) -> TrialSpec:
    """Check a specification against the registries and its data, and fill in the defaults."""
    problems, full = [], spec
    takes_all_genes = spec.selector in SELECTORS and SELECTORS[spec.selector].takes_all_genes
    if takes_all_genes:
        spec = full = spec.model_copy(update={"n_markers": len(cells.genes)})
    if spec.noise.level == 0:
        # Whatever its kind, no noise is the same trial.
        spec = full = spec.model_copy(update={"noise": LabelNoise()})
    try:
        params = resolve_params(spec.selector, spec.params)
        selector = make_selector(spec.model_copy(update={"params": params}), cells, 0)
        selector.check_params()
        params |= selector.settled_params(len(cells.genes))
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
        listed = "; ".join(problem.rstrip(".") for problem in problems)
        raise UserError(f"{spec.selector} on {cells.name}: {listed}.")
    return full


def memory_problems(name: str, cells: Cells) -> list[str]:
    """Whether a method would have more cells in memory than there is room for."""
    if name not in SELECTORS or SELECTORS[name].reads_from_disk:
        return []
    n_cells, n_genes = cells.adata.shape
    # The z-scores, and what the method makes of them.
    needed = 2 * 4 * n_cells * n_genes
    free = free_memory()
    if not is_large(cells.adata.shape) or needed < free:
        return []
    able = ", ".join(n for n, selector in SELECTORS.items() if selector.reads_from_disk)
    return [
        f"it has all {n_cells:,} cells x {n_genes:,} genes in memory, which takes "
        f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; these methods read them from "
        f"disk: {able}"
    ]
