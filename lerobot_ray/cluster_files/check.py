"""One file checked: what kind it is, what is wrong with it, what it will start."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot_ray.cluster_files.explain import explain
from lerobot_ray.cluster_files.findings import Finding
from lerobot_ray.cluster_files.kuberay import check_kuberay, is_kuberay
from lerobot_ray.cluster_files.ray_up import RayCheck, check_ray_up, is_ray_up
from lerobot_ray.cluster_files.rules import judge, unset_parameters
from lerobot_ray.cluster_files.script import check_script
from lerobot_ray.cluster_files.source import Document, read_documents
from lerobot_ray.core.errors import ConfigError


@dataclass(frozen=True)
class Report:
    """What a check found."""

    file: str
    findings: tuple[Finding, ...]
    words: tuple[str, ...]
    """What will be started, a text for each cluster of the file."""

    def of_level(self, level: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == level]


def check_file(path: Path, *, ray_check: RayCheck, crd_schemas: Mapping[str, dict[str, Any]] | None = None) -> Report:
    """The report on a file; ConfigError when it cannot be read or is of no kind known here."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if path.suffix in (".sh", ".sbatch", ".slurm") or text.startswith("#!"):
        words, found = check_script(text)
        return Report(str(path), tuple(found), (words,))
    return _check_yaml(str(path), text, ray_check, crd_schemas)


def _check_yaml(file: str, text: str, ray_check: RayCheck, crd_schemas: Mapping[str, dict[str, Any]] | None) -> Report:
    documents, findings = read_documents(text)
    words: list[str] = []
    known = 0
    for document in documents:
        value = document.value
        if is_kuberay(value):
            plan, found = check_kuberay(value, crd_schemas)
        elif is_ray_up(value):
            plan, found = check_ray_up(value, ray_check)
        elif isinstance(value, Mapping) and "apiVersion" in value and "kind" in value:
            plan, found = None, []
            words.append(f"  {value['kind']}  Kubernetes' own to check; here for its parameters only")
        else:
            continue
        known += 1
        found += list(unset_parameters(value))
        if plan is not None:
            found += judge(plan)
            words.append(explain(plan))
        findings += [_with_line(finding, document) for finding in found]
    if not known and not findings:
        raise ConfigError(
            f"{file} is neither a file for `ray up` (cluster_name, provider, available_node_types), nor a KubeRay "
            "manifest (apiVersion: ray.io/v1), nor a script."
        )
    order = {"error": 0, "warning": 1, "unset": 2}
    findings = sorted(findings, key=lambda finding: (order[finding.level], finding.line or 0))
    once = {  # a value that other places repeat by a YAML alias is one
        (finding.level, finding.message, finding.line if finding.level != "unset" else None): finding
        for finding in reversed(findings)
    }
    return Report(file, tuple(reversed(once.values())), tuple(words))


def _with_line(finding: Finding, document: Document) -> Finding:
    line = finding.line or (document.line(finding.path) if finding.path else None)
    return dataclasses.replace(finding, line=line)
