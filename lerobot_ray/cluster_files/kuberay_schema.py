"""JSON schemas of KubeRay's kinds: from the field list beside this file, or from the CRDs of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from lerobot_ray.core.errors import ConfigError

QUANTITY = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
PLAIN = ("string", "integer", "number", "boolean")


@cache
def builtin_schemas() -> dict[str, dict[str, Any]]:
    """Kind -> JSON schema, of the fields that `kuberay.yaml` lists."""
    text = resources.files("lerobot_ray.cluster_files").joinpath("kuberay.yaml").read_text(encoding="utf-8")
    types = yaml.safe_load(text)
    definitions = {name: _type(fields) for name, fields in types.items()}
    return {kind: {"$ref": f"#/$defs/{kind}", "$defs": definitions} for kind in ("RayCluster", "RayJob")}


def _type(text: Any) -> dict[str, Any]:
    if isinstance(text, Mapping):
        return {
            "type": "object",
            "properties": {name.removesuffix("!"): _type(below) for name, below in text.items()},
            "required": [name[:-1] for name in text if name.endswith("!")],
            "additionalProperties": False,
        }
    if isinstance(text, list):
        return {"type": "array", "items": _type(text[0])}
    if text == "any":
        return {}
    if text == "quantity":
        return quantity()
    if text in PLAIN:
        return {"type": text}
    if text.startswith("{"):
        return {"type": "object", "additionalProperties": _type(text[1:-1])}
    if "|" in text:
        return {"enum": text.split("|")}
    return {"$ref": f"#/$defs/{text}"}


def quantity() -> dict[str, Any]:
    return {"anyOf": [{"type": "number"}, {"type": "string", "pattern": QUANTITY}], "$comment": "quantity"}


def crd_schemas(text: str) -> dict[str, dict[str, Any]]:
    """Kind -> JSON schema, from CustomResourceDefinitions as `kubectl get crd … -o yaml` prints them."""
    found: dict[str, dict[str, Any]] = {}
    for document in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        for item in (document or {}).get("items", [document]):
            if not isinstance(item, Mapping) or item.get("kind") != "CustomResourceDefinition":
                continue
            versions = [version for version in item["spec"]["versions"] if version.get("served", True)]
            version = next((each for each in versions if each["name"] == "v1"), versions[-1])
            found[item["spec"]["names"]["kind"]] = _root(closed(version["schema"]["openAPIV3Schema"]))
    if not found:
        raise ConfigError(
            "the --crd file holds no CustomResourceDefinition. Write one with: "
            "kubectl get crd rayclusters.ray.io rayjobs.ray.io -o yaml > crd.yaml"
        )
    return found


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An OpenAPI v3 schema as JSON schema that refuses fields it does not know, as an API server does on request."""
    converted: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            converted[key] = {name: closed(below) for name, below in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, Mapping):
            converted[key] = closed(value)
        elif key in ("type", "enum", "required", "minimum", "maximum", "minItems", "pattern", "additionalProperties"):
            converted[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        pattern = {"pattern": converted.pop("pattern")} if "pattern" in converted else {}
        converted.pop("type", None)
        converted |= {"anyOf": [{"type": "number"}, {"type": "string", **pattern}], "$comment": "quantity"}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in converted
    if "properties" in converted and not is_open:
        converted["additionalProperties"] = False
    if schema.get("nullable") and "type" in converted:
        converted["type"] = [converted["type"], "null"]
    return converted


def _root(schema: dict[str, Any]) -> dict[str, Any]:
    if "metadata" in schema.get("properties", {}):  # the API server checks it by rules of its own
        schema["properties"]["metadata"] = {"type": "object"}
    return schema
