"""`python -m lerobot_ray.cluster check FILE`: is a cluster file right, and what will it start?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lerobot_ray.cluster_files import Report, check_file, line_of
from lerobot_ray.core.errors import LerobotRayError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 when a file is wrong or has parameters to set, 2 when it cannot be checked."""
    parser = argparse.ArgumentParser(prog="python -m lerobot_ray.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="check files for `ray up`, KubeRay manifests and Slurm scripts")
    check.add_argument("files", type=Path, nargs="+", metavar="FILE")
    check.add_argument(
        "--crd", type=Path, help="check manifests against these CRDs: kubectl get crd rayclusters.ray.io -o yaml"
    )
    check.add_argument("--template", action="store_true", help="parameters still to be set are no error")
    words = parser.parse_args(argv)
    try:
        schemas = _schemas(words.crd)
        codes = [_check(file, schemas, is_template=words.template) for file in words.files]
    except LerobotRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return max(codes)


def _schemas(crd: Path | None) -> dict[str, dict[str, Any]] | None:
    if crd is None:
        return None
    from lerobot_ray.cluster_files.kuberay_schema import crd_schemas
    from lerobot_ray.core.errors import ConfigError

    try:
        return crd_schemas(crd.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{crd} cannot be read: {error}") from error


def _check(file: Path, schemas: dict[str, dict[str, Any]] | None, *, is_template: bool) -> int:
    report = check_file(file, ray_check=_ray_verdict, crd_schemas=schemas)
    for text in report.words:
        print(f"{file}\n{text}")
    errors, unset = report.of_level("error"), report.of_level("unset")
    for title, findings in (
        ("wrong", errors),
        ("to consider", report.of_level("warning")),
        ("to set before it is started", unset),
    ):
        if findings:
            print(f"\n{title}:")
            print("\n".join(f"  {line_of(finding, str(file))}" for finding in findings))
    print(f"\n{_verdict(report, is_template)}")
    return 1 if errors or (unset and not is_template) else 0


def _verdict(report: Report, is_template: bool) -> str:
    errors, unset = len(report.of_level("error")), len(report.of_level("unset"))
    if errors:
        return f"{report.file}: {errors} error{'s' if errors != 1 else ''}"
    if unset and not is_template:
        return f"{report.file}: right, once {unset} parameter{'s are' if unset != 1 else ' is'} set"
    return f"{report.file}: right"


def _ray_verdict(config: dict[str, Any]) -> tuple[list[Any], str]:
    from lerobot_ray.on_ray.ray_up_schema import ray_up_verdict  # not before: ray takes seconds to import

    return ray_up_verdict(config)


if __name__ == "__main__":
    sys.exit(main())
