"""Checks of a search, and that its name is new, before anything is written."""

from __future__ import annotations

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError, join_problems
from mmlab.selectors import get_selector, resolve_params
from mmlab.spec.search import SearchSpec
from mmlab.tracking import TrackingStore, find_study_run
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.run import Trial


def require_new(name: str, store: TrackingStore) -> None:
    """Check that no study has this name.

    Raises
    ------
    UserError
        The store already has a study of this name.
    """
    if find_study_run(store, name) is not None:
        raise UserError(
            f"study {name} already exists in {store.uri}. Resume it with --resume {name}, or "
            "pass another --name."
        )


def check_search(spec: SearchSpec, cells: Cells) -> None:
    """Check that a search can be run, before anything is written.

    Raises
    ------
    UserError
        The search space or a trial of it is invalid, or the constraints cannot be satisfied.
    """
    search = spec.search
    defaults = resolve_params(search.selector, search.fixed)
    problems = [
        f"{name} is not a parameter of {search.selector} (it has: {', '.join(defaults)})"
        for name in search.parameters
        if name not in defaults
    ]
    problems += [f"{n} is both searched and fixed" for n in search.parameters if n in search.fixed]
    if not get_selector(search.selector).trains_in_epochs:
        problems.append(f"{search.selector} does not train in epochs and cannot be tuned")
    if problems:
        raise UserError("search space: " + join_problems(problems))
    for point in search.boundary_points():
        resolve_spec(spec.trial(search.selector, search.fixed | point), cells)
    for baseline in spec.baselines:
        resolve_spec(spec.trial(baseline, {}), cells)
    # All trials have the same training cells: checking the constraints of one trial suffices.
    first = spec.trial(search.selector, search.fixed | search.boundary_points()[0])
    Trial(first, cells).check_constraints()
