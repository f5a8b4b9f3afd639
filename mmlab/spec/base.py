"""What specifications are made of: frozen models, plain values, canonical JSON."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)


def _plain(value: Any) -> Any:
    if not isinstance(value, Scalar) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"must be a text, true, false or a finite number, got {value!r}")
    return value


Scalar = bool | int | float | str


#: A scalar that JSON can hold.
Value = Annotated[Scalar, BeforeValidator(_plain)]


Count = Annotated[int, Field(strict=True, ge=1)]


Seed = Annotated[int, Field(strict=True, ge=0)]


#: A gene's or a group's name.
Name = Annotated[str, Field(min_length=1)]


class Spec(BaseModel):
    """Base of all specifications: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def is_nothing(value: object) -> bool:
    """Whether a value is empty: such fields are left out of the JSON."""
    return not value


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal content gives an equal string."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
