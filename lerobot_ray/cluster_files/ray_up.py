"""Files for `ray up`: what they will start, and what is particular about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lerobot_ray.cluster_files.findings import Finding
from lerobot_ray.cluster_files.plan import ClusterPlan, Group
from lerobot_ray.cluster_files.schema import findings_of

PLACES = {"aws": "AWS", "gcp": "Google Cloud", "azure": "Azure", "local": "machines of your own"}
DETECTED = ("aws",)
"""Clouds where Ray looks a machine's resources up by itself."""
RayCheck = Callable[[dict[str, Any]], tuple[list[Any], str]]
"""Ray's own validation: schema errors, and one line about anything else it refuses."""


def is_ray_up(value: Any) -> bool:
    keys = ("provider", "available_node_types", "head_node_type", "cluster_name")
    return isinstance(value, Mapping) and any(key in value for key in keys)


def check_ray_up(value: dict[str, Any], ray_check: RayCheck) -> tuple[ClusterPlan | None, list[Finding]]:
    """The plan, and what Ray's schema and the ways of `ray up` say; no plan where the file is not whole enough."""
    errors, refusal = ray_check(value)
    found = findings_of(errors)
    if refusal:
        found.append(Finding(level="error", message=f"Ray refuses it: {refusal}"))
    if any(finding.level == "error" for finding in found):
        return None, found
    types: Mapping[str, Any] = value.get("available_node_types") or {}
    head_type = value.get("head_node_type")
    place = value["provider"]["type"]
    if not types:
        return None, [Finding(level="error", message="has no available_node_types.", remedy="clusters/ has examples.")]
    groups = {name: _group(name, body, value) for name, body in types.items()}
    text = _all_text(value)
    idle_minutes = value.get("idle_timeout_minutes")
    plan = ClusterPlan(
        kind=f"ray up on {PLACES.get(place, place)}",
        name=value["cluster_name"],
        head=groups.get(str(head_type)),
        workers=tuple(group for name, group in groups.items() if name != head_type),
        most_workers=value.get("max_workers", 2),
        idle_s=None if idle_minutes is None else idle_minutes * 60,
        has_token=_has_token(value, text),
        token_path=("docker", "run_options") if "run_options" in (value.get("docker") or {}) else ("provider",),
        shared_folder=_shared_folder(value),
    )
    return plan, [*found, *_ports(value), *_offers(plan, place), *_docker(value), *_machine_images(value)]


def _group(name: str, body: Mapping[str, Any], value: Mapping[str, Any]) -> Group:
    config = body.get("node_config") or {}
    machine = config.get("InstanceType") or config.get("machineType")
    machine = machine or (config.get("azure_arm_parameters") or {}).get("vmSize") or ""
    place, resources = value["provider"]["type"], body.get("resources") or {}
    docker, own = value.get("docker") or {}, body.get("docker") or {}
    is_head = name == value.get("head_node_type")
    key = "head_image" if is_head else "worker_image"
    image = own.get("worker_image") or docker.get(key) or docker.get("image") or ""
    most = body.get("max_workers", 0 if is_head else value.get("max_workers", 2))
    return Group(
        name=name,
        path=("available_node_types", name),
        resources=None if not resources and place in DETECTED else resources,
        machine=str(machine),
        fewest=body.get("min_workers", 0),
        most=most,
        is_spot=_is_spot(config),
        priority=body.get("priority", 0),
        idle_s=body.get("idle_timeout_s"),
        image=image,
        image_path=("docker", key if docker.get(key) else "image"),
    )


def _is_spot(config: Mapping[str, Any]) -> bool:
    if (config.get("InstanceMarketOptions") or {}).get("MarketType") == "spot":
        return True
    if str((config.get("azure_arm_parameters") or {}).get("priority", "")).lower() == "spot":
        return True
    scheduling = config.get("scheduling") or []
    scheduling = [scheduling] if isinstance(scheduling, Mapping) else scheduling
    return any(each.get("preemptible") or each.get("provisioningModel") == "SPOT" for each in scheduling)


def _has_token(value: Mapping[str, Any], text: str) -> bool:
    mounts = " ".join(str(target) for target in (value.get("file_mounts") or {}))
    has_token = "auth_token" in mounts or "RAY_AUTH_TOKEN" in text
    return bool(re.search(r"RAY_AUTH_MODE=['\"]?token", text)) and has_token


def _shared_folder(value: Mapping[str, Any]) -> str:
    options = [str(option) for option in (value.get("docker") or {}).get("run_options") or []]
    folders = [found.group(1) for option in options if (found := re.search(r"-v\s*(\S+):/shared(\s|$)", option))]
    return "/shared" if folders else ""


def _ports(value: Mapping[str, Any]) -> Iterator[Finding]:
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        for place, command in enumerate(value.get(key) or []):
            if re.search(r"--dashboard-host[= ]+(0\.0\.0\.0|::)", command):
                yield Finding(
                    level="error",
                    message="opens the dashboard and the job server to the network.",
                    remedy="Leave --dashboard-host out and reach them with `ray dashboard FILE`, through SSH.",
                    path=(key, place),
                )
    if "head_start_ray_commands" not in value:
        yield Finding(
            level="error",
            message="has no head_start_ray_commands, and Ray's own open the dashboard with --dashboard-host=0.0.0.0.",
            remedy="Copy head_start_ray_commands from clusters/.",
        )
    for place, rule in enumerate((value["provider"].get("security_group") or {}).get("IpPermissions") or []):
        ranges = [each.get("CidrIp") or each.get("CidrIpv6") for each in rule.get("IpRanges") or []]
        ports = (rule.get("FromPort"), rule.get("ToPort"))
        if any(each in ("0.0.0.0/0", "::/0") for each in ranges) and ports != (22, 22):
            yield Finding(
                level="error",
                message=f"opens ports {ports[0]} to {ports[1]} to the whole internet.",
                remedy="Keep to port 22, or to a range of your own.",
                path=("provider", "security_group", "IpPermissions", place),
            )


def _offers(plan: ClusterPlan, place: str) -> Iterator[Finding]:
    for group in plan.workers:
        if not group.resources and place not in DETECTED:
            yield Finding(
                level="error",
                message="names no resources, and Ray does not look them up on this cloud: the group never starts.",
                remedy='Add what its machine has, e.g. resources: {"CPU": 16, "GPU": 1}.',
                path=group.path,
            )


def _docker(value: Mapping[str, Any]) -> Iterator[Finding]:
    docker = value.get("docker") or {}
    if not (docker.get("image") or docker.get("head_image")):
        setup = " ".join([*(value.get("setup_commands") or []), *(value.get("head_setup_commands") or [])])
        if "lerobot" not in setup:
            yield Finding(
                level="error",
                message="neither an image nor setup_commands bring lerobot_ray to the nodes.",
                remedy="Set docker.image; clusters/docker builds one.",
                path=("docker",) if "docker" in value else (),
            )


def _machine_images(value: Mapping[str, Any]) -> Iterator[Finding]:
    if value["provider"]["type"] != "aws":
        return
    for name, body in value["available_node_types"].items():
        image = str((body.get("node_config") or {}).get("ImageId", ""))
        if image.lower() in ("", "latest_dlami"):
            yield Finding(
                level="warning",
                message="names no ImageId, and Ray's own is an Ubuntu 18.04 of 2022 with a driver of that time.",
                remedy="Name an AMI of the region with Docker and a recent NVIDIA driver.",
                path=("available_node_types", name, "node_config"),
            )


def _all_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(_all_text(below) for below in value.values())
    if isinstance(value, list):
        return " ".join(_all_text(below) for below in value)
    return str(value)
