"""Print the JSON schema of a Kubernetes resource from its definition: crd_schema.py FILE.

Unlike a Kubernetes server, which drops keys that it does not know, the schema refuses them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml


def strict(schema: Any) -> Any:
    """Return the schema with additional properties refused where it lists properties."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if isinstance(schema.get("properties"), dict) and "type" in schema and not is_open:
        result.setdefault("additionalProperties", False)
    return result


definition = yaml.safe_load(Path(sys.argv[1]).read_text())
version = next(v for v in definition["spec"]["versions"] if v["name"] == "v1")
schema = strict(version["schema"]["openAPIV3Schema"])
# Kubernetes itself describes what is in metadata.
schema["properties"]["metadata"] = {"type": "object"}
json.dump(schema, sys.stdout)
