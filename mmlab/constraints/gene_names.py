"""Genes that panel constraints name: by either of their names, with hints for unknown ones."""

from __future__ import annotations

import difflib
import re
from functools import cached_property
from typing import TypeVar, cast

from mmlab.datasets.cells import Cells
from mmlab.spec.constraints import ConstrainedSpec
from mmlab.spec.trial import TrialSpec

SpecT = TypeVar("SpecT", bound=TrialSpec | ConstrainedSpec)

#: What stands between the parts of a name, and becomes a dot in R.
_SEPARATORS = re.compile(r"[-._ ]")
#: Version at the end of an Ensembl identifier: ENSG00000141510.18.
_VERSION = re.compile(r"(?<=\d)\.\d+$")


def use_gene_names(spec: SpecT, cells: Cells) -> SpecT:
    """Return the specification with all genes by the names that the cells use for them.

    Original names (:attr:`mmlab.datasets.cells.Cells.gene_ids`) are replaced; a name that is in
    use is never taken for an original one. Unknown names are kept.
    """
    if cells.gene_ids is None:
        return spec
    genes = cells.genes.tolist()
    names = dict(zip(cells.gene_ids.tolist(), genes, strict=True)) | {gene: gene for gene in genes}
    constraints = spec.constraints
    if constraints:
        tables = {
            "groups": {names.get(gene, gene): group for gene, group in constraints.groups.items()},
            "weights": {names.get(gene, gene): w for gene, w in constraints.weights.items()},
        }
        constraints = constraints.model_copy(update=tables)
    renamed = {
        "include": [names.get(gene, gene) for gene in spec.include],
        "exclude": [names.get(gene, gene) for gene in spec.exclude],
        "constraints": constraints,
    }
    return cast(SpecT, spec.model_copy(update=renamed))


class GeneHints:
    """Hints for names that are not among the genes of the cells."""

    def __init__(self, cells: Cells) -> None:
        ids = [] if cells.gene_ids is None else cells.gene_ids.tolist()
        self.names: list[str] = [*cells.genes.tolist(), *ids]

    def quote(self, name: str) -> str:
        """Return a name quoted, followed by the nearest known name if there is one.

        The nearest name differs only in the version of an Ensembl identifier, else only in case
        and separators, else in a few letters. Other numbers are other genes: CD31 is not CHD3.
        """
        near = (
            self._without_version.get(_VERSION.sub("", name))
            or self._plain.get(_plain(name))
            or self._similar(name)
        )
        return repr(name) + (f" (did you mean {near!r}?)" if near else "")

    def _similar(self, name: str) -> str | None:
        near = difflib.get_close_matches(name, self.names, cutoff=0.75)
        return next((other for other in near if _digits(other) == _digits(name)), None)

    @cached_property
    def _without_version(self) -> dict[str, str]:
        return {_VERSION.sub("", name): name for name in self.names if name.startswith("ENS")}

    @cached_property
    def _plain(self) -> dict[str, str]:
        return {_plain(name): name for name in self.names}


def _digits(name: str) -> list[str]:
    return re.findall(r"\d", name)


def _plain(name: str) -> str:
    """Return a name in lower case and without separators."""
    return _SEPARATORS.sub("", name.lower())
