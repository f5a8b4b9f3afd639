"""Specifications stored in the tags of a run; long ones are split, as MLflow truncates tags."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping

from pydantic import BaseModel

_TAG = "mmlab.spec"
#: Maximum length of a tag in characters that every version of MLflow accepts.
_MAX_LENGTH = 5000
#: Errors of reading a specification whose tags are missing or were changed.
DAMAGED_SPEC = (KeyError, ValueError, zlib.error)


def spec_tags(spec: BaseModel) -> dict[str, str]:
    """Return the tags of a specification: one tag with JSON, or compressed chunks if it is long."""
    text = spec.model_dump_json()
    if len(text) <= _MAX_LENGTH:
        return {_TAG: text}
    encoded = base64.b64encode(zlib.compress(text.encode())).decode()
    chunks = [encoded[start : start + _MAX_LENGTH] for start in range(0, len(encoded), _MAX_LENGTH)]
    return {_TAG: str(len(chunks))} | {f"{_TAG}.{i}": chunk for i, chunk in enumerate(chunks)}


def spec_json(tags: Mapping[str, str]) -> str:
    """Return the JSON of a specification from tags written by :func:`spec_tags`."""
    text = tags[_TAG]
    if not text.isdecimal():
        return text
    encoded = "".join(tags[f"{_TAG}.{i}"] for i in range(int(text)))
    return zlib.decompress(base64.b64decode(encoded)).decode()
