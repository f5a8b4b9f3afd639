"""Groups of trials of a comparison: what a worker runs at a time."""

from __future__ import annotations

from collections import Counter, defaultdict

from mmlab.schedule.comparison_plan import PlannedTrial
from mmlab.selectors import get_selector
from mmlab.spec.resources import Resources

#: Maximum number of trials that are trained as one batch on a GPU. Their results are recorded
#: together, once the whole batch is done.
_MAX_BATCHED = 10


def group_trials(missing: list[PlannedTrial], resources: Resources) -> list[list[PlannedTrial]]:
    """Group the missing trials; an actor runs one group at a time.

    A group is a single replicate, with two exceptions. Trials that differ only in labels that the
    method ignores form one group, because the method is fitted once for all of them. On a GPU,
    the replicates and noise levels of a method are trained as one batch of models.

    A replicate that is trained alone gives bit-identical results, whatever other trials are
    missing. In a batch, results are equal only up to rounding, which a long training can amplify
    until a different gene is chosen.

    Returns
    -------
    Groups in the order in which they should run: first replicates first.
    """
    groups: dict[tuple[object, ...], list[PlannedTrial]] = defaultdict(list)
    n_batched: Counter[tuple[object, ...]] = Counter()
    for trial in sorted(missing, key=_first_replicates_first):
        selector, spec = get_selector(trial.spec.selector), trial.spec
        batched = resources.gpus_per_trial > 0 and selector.trains_in_epochs
        key: tuple[object, ...] = (trial.method.title, spec.n_markers, repr(spec.params))
        if not selector.supervised:
            key += (spec.first_replicate // (_MAX_BATCHED if batched else 1),)
        elif batched:
            # Start a new batch once the current one is full.
            n_batched[key] += 1
            key += ((n_batched[key] - 1) // _MAX_BATCHED,)
        else:
            key += (trial.setting.name, spec.first_replicate)
        groups[key].append(trial)
    # In this order every method soon has a finished trial, which gives an estimate of its time.
    return sorted(groups.values(), key=lambda group: _first_replicates_first(group[0]))


def _first_replicates_first(trial: PlannedTrial) -> tuple[int, int]:
    return trial.spec.first_replicate, trial.setting.step
