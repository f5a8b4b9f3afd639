"""Methods that a promotion evaluates, and those of them that compete for the title."""

from __future__ import annotations

from collections.abc import Sequence

from mmlab.champion.candidates import candidate_title
from mmlab.champion.decision import Contenders
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError, join_problems
from mmlab.selectors import resolve_params
from mmlab.spec.comparison import MethodSpec
from mmlab.spec.search import SearchSpec
from mmlab.tracking import Champion, TrialRecord
from mmlab.trial.defaults import resolve_spec


def compared_methods(
    search: SearchSpec,
    candidates: Sequence[TrialRecord],
    champion: Champion | None,
    baselines: Sequence[str],
    cells: Cells,
) -> tuple[list[MethodSpec], Contenders]:
    """Return the methods that a promotion evaluates, and which of them compete.

    Parameters
    ----------
    candidates
        Trials of the search; the best one first.
    champion
        The present champion of the same data.
    baselines
        Selectors, with their default hyperparameters.

    Returns
    -------
    Candidates, champion, the searched method with its default hyperparameters, and baselines, in
    this order. Methods with the same selector and hyperparameters are one method, with the name
    of the first.

    Raises
    ------
    UserError
        A method cannot be run on the cells; the message lists all of them.
    """
    selector = search.search.selector
    default = MethodSpec(selector=selector, label=f"{selector} (default)")
    proposed = [
        MethodSpec(selector=r.selector, params=r.spec.params, label=candidate_title(r))
        for r in candidates
    ]
    best, present = proposed[0], _champion_method(champion)
    proposed += [*present, default, *(MethodSpec(selector=name) for name in baselines)]
    digests, problems = list[str](), list[str]()
    for method in proposed:
        try:
            trial = resolve_spec(search.trial(method.selector, method.params), cells)
            digests.append(trial.digest(cells.fingerprint))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(join_problems(problems))
    methods: dict[str, MethodSpec] = {}
    titles = {
        method.title: methods.setdefault(digest, method).title
        for method, digest in zip(proposed, digests, strict=True)
    }
    champion_title = titles[present[0].title] if present else None
    defaults = resolve_params(selector, {})
    fixed = {n: v for n, v in search.search.fixed.items() if v != defaults[n]}
    contenders = Contenders(best.title, titles[default.title], champion_title, fixed)
    return list(methods.values()), contenders


def _champion_method(champion: Champion | None) -> list[MethodSpec]:
    if champion is None:
        return []
    label = f"{champion.spec.selector} {champion.digest[:8]} (champion)"
    return [MethodSpec(selector=champion.spec.selector, params=champion.spec.params, label=label)]
