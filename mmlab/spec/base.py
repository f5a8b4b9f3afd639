"""Building blocks of specifications: frozen pydantic models, scalar types, canonical JSON."""

from __future__ import annotations

import json
import math
import reprlib
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)

#: Integers are below this, in absolute value: they fit into 64 bits.
MAX_INTEGER = 2**63
LARGE_INTEGER = "integers must fit into 64 bits, with their sign"


class _ShortRepr(reprlib.Repr):
    """Short ``repr`` also of integers with more digits than Python prints."""

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 1000:
            return f"an integer of {x.bit_length()} bits"
        return super().repr_int(x, level)


_REPR = _ShortRepr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100


def short_repr(value: object) -> str:
    """Return the ``repr`` of a value on one line, shortened if it is long."""
    return " ".join(_REPR.repr(value).split())


def plain_scalar(value: Any) -> Any:
    """Return a number of numpy as one of Python, and everything else as it is."""
    is_scalar = getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if is_scalar else value


def _check_scalar(value: Any) -> Any:
    value = plain_scalar(value)
    if not isinstance(value, Scalar) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"must be a string, a boolean or a finite number, got {short_repr(value)}")
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise ValueError(LARGE_INTEGER)
    return value


Scalar = bool | int | float | str

#: A scalar that can be written as JSON: no NaN, no infinity.
Value = Annotated[Scalar, BeforeValidator(_check_scalar)]

#: A positive integer; the bound is that of a 32-bit integer, as libraries expect.
Count = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1), BeforeValidator(plain_scalar)]

#: Number of random splits.
Replicates = Annotated[int, Field(strict=True, ge=1, le=10_000), BeforeValidator(plain_scalar)]

#: A non-negative integer.
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63), BeforeValidator(plain_scalar)]

#: Name of a gene or of a group of genes.
Name = Annotated[str, Field(min_length=1)]


class Spec(BaseModel):
    """Base class of all specifications: frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def is_empty(value: object) -> bool:
    """Return whether a value is empty; empty fields are left out of the JSON."""
    return not value


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, so that equal content gives equal strings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
