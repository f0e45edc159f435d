"""KubeRay's schemas: ours, and those of a cluster's own CRDs."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from lerobot_ray.cluster import main
from lerobot_ray.cluster_files.kuberay_schema import builtin_schemas, closed, crd_schemas
from lerobot_ray.core.errors import ConfigError

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec:
  names: {kind: RayCluster}
  versions:
    - name: v1
      served: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              required: [headGroupSpec]
              properties:
                headGroupSpec:
                  type: object
                  x-kubernetes-preserve-unknown-fields: true
                  properties: {a: {type: string}}
                size: {x-kubernetes-int-or-string: true, pattern: "^[0-9]+(Gi)?$"}
                note: {type: string, nullable: true}
                free: {type: object, additionalProperties: {type: string}}
"""


def test_our_field_list_is_a_schema():
    for schema in builtin_schemas().values():
        jsonschema.Draft202012Validator.check_schema(schema)
        names = schema["$defs"]
        for reference in _references(schema):
            assert reference.removeprefix("#/$defs/") in names


def _references(value):
    if isinstance(value, dict):
        yield from (value["$ref"],) if "$ref" in value else ()
        for below in value.values():
            yield from _references(below)
    elif isinstance(value, list):
        for below in value:
            yield from _references(below)


def test_a_crd_closes_what_it_does_not_leave_open():
    schema = crd_schemas(CRD)["RayCluster"]
    validator = jsonschema.Draft202012Validator(schema)
    good = {"headGroupSpec": {"anything": 1}, "size": "2Gi", "note": None, "free": {"x": "y"}}
    assert not list(validator.iter_errors({"spec": good}))
    for bad in ({"other": 1}, {"size": "2G"}, {"free": {"x": 1}}, {"note": 3}, {"headGroupSpec": {"a": 1}}):
        assert list(validator.iter_errors({"spec": {**good, **bad}})), bad
    assert list(validator.iter_errors({"spec": {}}))


def test_closing_leaves_free_maps_free():
    assert closed({"type": "object", "additionalProperties": {"type": "string"}})["additionalProperties"] == {
        "type": "string"
    }


def test_a_file_without_crds_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="kubectl get crd"):
        crd_schemas(yaml.safe_dump({"kind": "ConfigMap"}))
    assert main(["check", "--crd", str(tmp_path / "none.yaml"), "x.yaml"]) == 2


def test_a_manifest_against_a_crd_of_ones_own(tmp_path, capsys):
    (tmp_path / "crd.yaml").write_text(CRD)
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "a"}, "spec": {"sizee": 1}}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(manifest))
    assert main(["check", "--crd", str(tmp_path / "crd.yaml"), str(tmp_path / "cluster.yaml")]) == 1
    assert "Did you mean size?" in capsys.readouterr().out
