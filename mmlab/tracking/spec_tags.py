"""A specification in the tags of a run, whatever its length: MLflow cuts a long tag."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping

from pydantic import BaseModel

_TAG = "mmlab.spec"
#: Characters of a tag that every version of MLflow keeps.
_LENGTH = 5000


def spec_tags(spec: BaseModel) -> dict[str, str]:
    """Tags that hold a specification: one of JSON or, where that is too long, compressed parts."""
    text = spec.model_dump_json()
    if len(text) <= _LENGTH:
        return {_TAG: text}
    packed = base64.b64encode(zlib.compress(text.encode())).decode()
    parts = [packed[start : start + _LENGTH] for start in range(0, len(packed), _LENGTH)]
    return {_TAG: str(len(parts))} | {f"{_TAG}.{i}": part for i, part in enumerate(parts)}


def spec_json(tags: Mapping[str, str]) -> str:
    """The JSON of the specification that :func:`spec_tags` has put into tags."""
    text = tags[_TAG]
    if not text.isdecimal():
        return text
    packed = "".join(tags[f"{_TAG}.{i}"] for i in range(int(text)))
    return zlib.decompress(base64.b64decode(packed)).decode()
