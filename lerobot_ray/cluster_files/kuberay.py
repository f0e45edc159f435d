"""KubeRay manifests: what they will start, and what is particular about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lerobot_ray.cluster_files.findings import Finding, Path
from lerobot_ray.cluster_files.kuberay_schema import builtin_schemas
from lerobot_ray.cluster_files.plan import ClusterPlan, Group, Job
from lerobot_ray.cluster_files.schema import findings_of
from lerobot_ray.core.errors import nearest

DEVICES = ("nvidia.com/gpu", "amd.com/gpu", "google.com/tpu", "habana.ai/gaudi", "aws.amazon.com/neuroncore")
POD_RESOURCES = ("cpu", "memory", "ephemeral-storage", *DEVICES)
START_PARAMS = (
    "num-cpus",
    "num-gpus",
    "memory",
    "resources",
    "labels",
    "port",
    "address",
    "dashboard-host",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "ray-client-server-port",
    "metrics-export-port",
    "object-store-memory",
    "object-spilling-directory",
    "node-ip-address",
    "node-manager-port",
    "object-manager-port",
    "runtime-env-agent-port",
    "min-worker-port",
    "max-worker-port",
    "worker-port-list",
    "temp-dir",
    "system-config",
    "include-dashboard",
    "disable-usage-stats",
    "no-monitor",
    "block",
    "redis-password",
    "redis-username",
)
"""Options of `ray start`, by their long names."""
FIRST_RAY_WITH_TOKEN = (2, 52)


def is_kuberay(value: Any) -> bool:
    return isinstance(value, Mapping) and str(value.get("apiVersion", "")).startswith("ray.io/")


def check_kuberay(
    value: dict[str, Any], schemas: Mapping[str, dict[str, Any]] | None = None
) -> tuple[ClusterPlan | None, list[Finding]]:
    """The plan, and what the schema and the ways of KubeRay say; no plan where the manifest is not whole enough."""
    import jsonschema  # with Ray; not before: it takes a moment

    known, kind = schemas or builtin_schemas(), value.get("kind")
    if kind not in known or kind not in ("RayCluster", "RayJob"):
        meant = nearest(str(kind), ("RayCluster", "RayJob"))
        return None, [
            Finding(
                level="error",
                message=f"{kind!r} is not checked here, only RayCluster and RayJob.",
                remedy=f"Did you mean {meant}?" if meant and meant != kind else "",
                path=("kind",),
            )
        ]
    found = findings_of(jsonschema.Draft202012Validator(known[kind]).iter_errors(value))
    if any(finding.level == "error" for finding in found):
        return None, found
    root: Path = ("spec",) if kind == "RayCluster" else ("spec", "rayClusterSpec")
    spec = value["spec"] if kind == "RayCluster" else value["spec"].get("rayClusterSpec")
    if spec is None:
        return None, [*found, *_job_without_cluster(value["spec"])]
    plan = _plan(value, spec, root)
    return plan, [*found, *_amounts(spec, root), *_params(spec, root), *_doors(spec, root), *_version(spec, root)]


def _plan(value: Mapping[str, Any], spec: Mapping[str, Any], root: Path) -> ClusterPlan:
    options = spec.get("autoscalerOptions") or {}
    has_token = (spec.get("authOptions") or {}).get("mode") == "token"
    workers = tuple(
        _group(body["groupName"], body, (*root, "workerGroupSpecs", place))
        for place, body in enumerate(spec.get("workerGroupSpecs") or [])
    )
    metadata = value.get("metadata") or {}
    return ClusterPlan(
        kind="KubeRay",
        name=metadata.get("name") or metadata.get("generateName") or "?",
        head=_group("head", spec["headGroupSpec"], (*root, "headGroupSpec")),
        workers=workers,
        idle_s=options.get("idleTimeoutSeconds"),
        grows=bool(spec.get("enableInTreeAutoscaling")),
        has_token=has_token,
        token_path=(*root, "authOptions") if "authOptions" in spec else root,
        shared_folder=_shared_folder(spec),
        job=_job(value["spec"]) if value["kind"] == "RayJob" else None,
        root=root,
    )


def _group(name: str, body: Mapping[str, Any], path: Path) -> Group:
    pod = body["template"].get("spec") or {"containers": [{}]}
    container = pod["containers"][0]
    limits = {
        **(container.get("resources") or {}).get("requests", {}),
        **(container.get("resources") or {}).get("limits", {}),
    }
    params = body.get("rayStartParams") or {}
    offers = {"CPU": _number(params.get("num-cpus", limits.get("cpu", 0)))}
    gpus = params.get("num-gpus", next((limits[device] for device in DEVICES if device in limits), 0))
    offers["GPU"] = _number(gpus)
    hosts = body.get("numOfHosts", 1)
    selector = {**(pod.get("nodeSelector") or {})}
    return Group(
        name=name,
        path=path,
        resources={key: amount for key, amount in offers.items() if amount},
        machine="",
        fewest=max(body.get("minReplicas", 0), body.get("replicas", 0)) * hosts,
        most=body.get("maxReplicas", 0) * hosts,
        is_spot=any("spot" in f"{key}={word}".lower() and word != "false" for key, word in selector.items()),
        priority=body.get("priority", 0),
        idle_s=body.get("idleTimeoutSeconds"),
        image=container.get("image", ""),
        image_path=(*path, "template", "spec", "containers", 0, "image"),
    )


def _number(text: Any) -> float:
    """A Kubernetes amount as a number; 0 for what is not one."""
    text = str(text)
    try:
        return float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        return 0.0


def _job(spec: Mapping[str, Any]) -> Job:
    return Job(
        command=" ".join(str(spec.get("entrypoint", "")).split()),
        ends_cluster=bool(spec.get("shutdownAfterJobFinishes")),
        lingers_s=spec.get("ttlSecondsAfterFinished", 0),
        retries=spec.get("backoffLimit", 0),
    )


def _job_without_cluster(spec: Mapping[str, Any]) -> Iterator[Finding]:
    if not spec.get("clusterSelector"):
        yield Finding(
            level="error",
            message="brings no cluster and selects none.",
            remedy="Give rayClusterSpec, or clusterSelector: {ray.io/cluster: NAME}.",
            path=("spec",),
        )


def _groups_of(spec: Mapping[str, Any], root: Path) -> Iterator[tuple[Mapping[str, Any], Path]]:
    yield spec["headGroupSpec"], (*root, "headGroupSpec")
    for place, body in enumerate(spec.get("workerGroupSpecs") or []):
        yield body, (*root, "workerGroupSpecs", place)


def _amounts(spec: Mapping[str, Any], root: Path) -> Iterator[Finding]:
    for body, path in _groups_of(spec, root):
        pod = body["template"].get("spec") or {}
        for place, container in enumerate(pod.get("containers") or []):
            below = (*path, "template", "spec", "containers", place)
            if not container.get("image"):
                yield Finding(level="error", message="has no image.", remedy="clusters/docker builds one.", path=below)
            resources = container.get("resources") or {}
            if place == 0 and "cpu" not in resources.get("limits", {}) and "cpu" not in resources.get("requests", {}):
                yield Finding(
                    level="error",
                    message="asks for no CPUs, so that Ray takes all of the machine for its own.",
                    remedy="Set resources.limits.cpu and memory.",
                    path=below,
                )
            for key in ("limits", "requests"):
                for name in resources.get(key) or {}:
                    if name not in POD_RESOURCES and (meant := nearest(name.lower(), POD_RESOURCES)):
                        yield Finding(
                            level="error"
                            if "/" not in name or name.split("/")[0] == meant.split("/")[0]
                            else "warning",
                            message=f"{name!r} is not a resource of Kubernetes' own.",
                            remedy=f"Did you mean {meant}?",
                            path=(*below, "resources", key, name),
                        )


def _params(spec: Mapping[str, Any], root: Path) -> Iterator[Finding]:
    for body, path in _groups_of(spec, root):
        for name in body.get("rayStartParams") or {}:
            if name not in START_PARAMS:
                meant = nearest(name, START_PARAMS)
                yield Finding(
                    level="error",
                    message="is no option of `ray start`.",
                    remedy=f"Did you mean {meant}?" if meant else "",
                    path=(*path, "rayStartParams", name),
                )


def _doors(spec: Mapping[str, Any], root: Path) -> Iterator[Finding]:
    head = spec["headGroupSpec"]
    if head.get("serviceType") in ("LoadBalancer", "NodePort"):
        yield Finding(
            level="error",
            message=f"{head['serviceType']} opens the dashboard and the job server beyond the Kubernetes cluster.",
            remedy="Use ClusterIP and `kubectl port-forward`.",
            path=(*root, "headGroupSpec", "serviceType"),
        )
    if head.get("enableIngress"):
        yield Finding(
            level="error",
            message="an ingress opens the dashboard and the job server beyond the Kubernetes cluster.",
            remedy="Use `kubectl port-forward`, or an ingress of your own with TLS.",
            path=(*root, "headGroupSpec", "enableIngress"),
        )
    for body, path in _groups_of(spec, root):
        pod = body["template"].get("spec") or {}
        if pod.get("hostNetwork"):
            yield Finding(
                level="error",
                message="hostNetwork opens Ray's ports on the machine itself.",
                remedy="Leave it out.",
                path=(*path, "template", "spec", "hostNetwork"),
            )


def _version(spec: Mapping[str, Any], root: Path) -> Iterator[Finding]:
    version = str(spec.get("rayVersion", ""))
    if not version:
        yield Finding(
            level="error",
            message="has no rayVersion, by which KubeRay decides on tokens and the autoscaler.",
            remedy="Set it to the version in the image.",
            path=root,
        )
        return
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if parts < FIRST_RAY_WITH_TOKEN:
        yield Finding(
            level="error",
            message=f"Ray {version} knows no token authentication.",
            remedy="Use 2.60 or newer.",
            path=(*root, "rayVersion"),
        )
    options = spec.get("autoscalerOptions") or {}
    if spec.get("enableInTreeAutoscaling") and options.get("version") != "v2":
        yield Finding(
            level="warning",
            message="without autoscalerOptions.version: v2, priorities and idle times of single groups do not count.",
            remedy="Set it.",
            path=(*root, "autoscalerOptions") if options else root,
        )


def _shared_folder(spec: Mapping[str, Any]) -> str:
    """Where every group mounts the same claim; empty when they have none in common."""
    common: set[tuple[str, str]] | None = None
    for body, _ in _groups_of(spec, ()):
        pod = body["template"].get("spec") or {"containers": [{}]}
        claims = {
            volume["name"]: str(volume.get("persistentVolumeClaim") or volume.get("nfs"))
            for volume in pod.get("volumes") or []
            if "persistentVolumeClaim" in volume or "nfs" in volume
        }
        mounts = pod["containers"][0].get("volumeMounts") or []
        here = {(mount["mountPath"], claims[mount["name"]]) for mount in mounts if mount["name"] in claims}
        common = here if common is None else common & here
    return next((folder for folder, _ in sorted(common or ())), "")
