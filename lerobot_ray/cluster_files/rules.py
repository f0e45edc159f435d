"""What every cluster of ours needs, wherever it runs: a head without work, a token, room that grows, one image."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lerobot_ray.cluster_files.findings import Finding, Path
from lerobot_ray.cluster_files.plan import ClusterPlan, Group
from lerobot_ray.core.errors import nearest

RESOURCES = ("CPU", "GPU", "TPU", "memory", "object_store_memory")
TEMPLATE_MARK = "<SET"


def judge(plan: ClusterPlan) -> list[Finding]:
    """Findings about the plan, most important first."""
    return [*_head(plan), *_token(plan), *_groups(plan), *_spot(plan), *_images(plan), *_growth(plan)]


def unset_parameters(value: object, path: Path = ()) -> Iterator[Finding]:
    """The places a person must fill in: `<SET: what>`."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from unset_parameters(below, (*path, str(key)))
    elif isinstance(value, list):
        for place, below in enumerate(value):
            yield from unset_parameters(below, (*path, place))
    elif isinstance(value, str):
        for what in marks_in(value):
            yield Finding(level="unset", message=f"yours to set: {what}.", path=path)


def marks_in(text: str) -> list[str]:
    """What the `<SET: what>` marks of a text ask for. `<SET: …>`, word for word, is how comments speak of them."""
    return [found.strip() for found in re.findall(r"<SET:?([^>]*)>", text) if found.strip() != "…"]


def _head(plan: ClusterPlan) -> Iterator[Finding]:
    head = plan.head
    if head is None:
        return
    if head.resources is None or head.cpus or head.gpus:
        offers = head.offer if head.resources is not None else "whatever its machine has"
        none = 'num-cpus: "0"' if plan.kind == "KubeRay" else 'resources: {"CPU": 0, "GPU": 0}'
        yield Finding(
            level="error",
            message=f"the head offers {offers} to work, so that training or decoding may run beside the cluster's own "
            "processes and take it down with them.",
            remedy=f"Give it none: {none}.",
            path=head.path,
        )
    if head.is_spot:
        yield Finding(
            level="error",
            message="the head runs on spot: the cluster and all its jobs end when it is taken away.",
            remedy="Take an on-demand machine for the head.",
            path=head.path,
        )


def _token(plan: ClusterPlan) -> Iterator[Finding]:
    if not plan.has_token:
        yield Finding(
            level="error",
            message="token authentication is off: whoever reaches the cluster's ports runs code on it.",
            remedy="Set authOptions: {mode: token}."
            if plan.kind == "KubeRay"
            else "Pass --env RAY_AUTH_MODE=token to every node, and mount the token file; clusters/aws shows how.",
            path=plan.token_path,
        )


def _groups(plan: ClusterPlan) -> Iterator[Finding]:
    if not plan.workers:
        yield Finding(level="error", message="there are no workers, and the head does not work.", path=plan.root)
        return
    for group in (*plan.workers, *([plan.head] if plan.head else [])):
        yield from _resource_names(group)
    for group in plan.workers:
        if group.resources is not None and not group.cpus:
            yield Finding(
                level="error",
                message="its nodes offer no CPUs, so that nothing can run on them.",
                remedy="Name what a node has, e.g. 16 CPUs.",
                path=group.path,
            )
        if group.fewest > group.most:
            yield Finding(
                level="error",
                message=f"at least {group.fewest} nodes, but at most {group.most}.",
                remedy="Raise the maximum or lower the minimum.",
                path=group.path,
            )
    known = [group for group in plan.workers if group.resources is not None]
    if len(known) < len(plan.workers):
        return
    if not any(group.gpus and group.most for group in known):
        yield Finding(level="warning", message="no group has GPUs: training runs on CPUs.", path=plan.root)
    elif not any(group.cpus and not group.gpus and group.most for group in known):
        yield Finding(
            level="warning",
            message="no group without GPUs: video is decoded on the CPUs of the GPU nodes alone.",
            remedy="Add a group of CPU-only nodes if training waits for data.",
            path=plan.root,
        )


def _resource_names(group: Group) -> Iterator[Finding]:
    for name in group.resources or {}:
        meant = next((known for known in RESOURCES if known.lower() == name.lower().removesuffix("s")), None)
        if name not in RESOURCES and meant is not None:
            yield Finding(
                level="error",
                message=f"offers {name!r}, which no job asks for: Ray's name is {meant!r}.",
                remedy=f"Write {meant}.",
                path=(*group.path, "resources", name),
            )
        elif name not in RESOURCES and ":" not in name and (close := nearest(name, RESOURCES)):
            yield Finding(
                level="warning",
                message=f"offers {name!r}, a resource of your own.",
                remedy=f"If you meant {close}, write that.",
                path=(*group.path, "resources", name),
            )


def _spot(plan: ClusterPlan) -> Iterator[Finding]:
    lasting = [group for group in plan.workers if not group.is_spot and group.most]
    for spot in (group for group in plan.workers if group.is_spot):
        same = [group for group in lasting if group.resources == spot.resources]
        if not same:
            yield Finding(
                level="warning",
                message="spot without a fallback: when there is none to be had, the run waits.",
                remedy="Add a group of the same resources on demand, with a lower priority.",
                path=spot.path,
            )
        elif all(group.priority >= spot.priority for group in same):
            yield Finding(
                level="warning",
                message=f"spot is not preferred to {same[0].name}.",
                remedy=f"Give it a priority above {max(group.priority for group in same)}.",
                path=spot.path,
            )


def _images(plan: ClusterPlan) -> Iterator[Finding]:
    groups = [group for group in (plan.head, *plan.workers) if group is not None and group.image]
    for group in groups:
        if TEMPLATE_MARK in group.image:
            continue
        tag = _tag(group.image)
        if tag in ("", "latest"):
            yield Finding(
                level="warning",
                message=f"{group.image} names no version: nodes that start later may run another one.",
                remedy="Name a tag, or a digest.",
                path=group.image_path,
            )
    images = {group.image for group in groups}
    if len(images) > 1:
        odd = next(group for group in groups if group.image != groups[0].image)
        yield Finding(
            level="warning",
            message=f"nodes run different images, {groups[0].image} and {odd.image}.",
            remedy="Ray and Python must be the same version in all of them; one image is the safe way.",
            path=odd.image_path,
        )


def _tag(image: str) -> str:
    if "@" in image:
        return image.split("@", 1)[1]
    last = image.rsplit("/", 1)[-1]
    return last.split(":", 1)[1] if ":" in last else ""


def _growth(plan: ClusterPlan) -> Iterator[Finding]:
    if not plan.grows:
        yield Finding(
            level="warning",
            message="the autoscaler is off: the cluster keeps the size it starts with.",
            remedy="Set enableInTreeAutoscaling: true." if plan.kind == "KubeRay" else "",
            path=plan.root,
        )
        return
    if plan.idle_s is None and any(group.idle_s is None for group in plan.workers):
        yield Finding(
            level="warning",
            message="no idle time is set; workers go by Ray's own default.",
            remedy="Set autoscalerOptions.idleTimeoutSeconds."
            if plan.kind == "KubeRay"
            else "Set idle_timeout_minutes.",
            path=plan.root,
        )
    total = sum(group.most for group in plan.workers)
    if total and plan.most_workers == 0:
        yield Finding(
            level="error",
            message="max_workers is 0: no worker will ever start.",
            remedy=f"Raise it to {total}.",
            path=(*plan.root, "max_workers"),
        )
