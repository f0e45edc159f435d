"""A cluster plan in words: what starts, when it grows, when it shrinks."""

from __future__ import annotations

from lerobot_ray.cluster_files.plan import ClusterPlan, Group


def explain(plan: ClusterPlan) -> str:
    """Several lines, each with a word in front."""
    lines = [("cluster", f"{plan.name}, {plan.kind}"), *_start(plan)]
    if plan.grows:
        lines += [*_growth(plan), ("shrinks", _shrinking(plan))]
    else:
        lines.append(("size", "stays as it starts: the autoscaler is off"))
    lines.append(("reach", "by token only" if plan.has_token else "open to whoever reaches its ports"))
    if plan.shared_folder:
        lines.append(("shared", f"{plan.shared_folder} on every node, for --output_dir and datasets"))
    if plan.job is not None:
        job = plan.job
        lines.append(("job", job.command))
        again = f"up to {job.retries} more times if it fails" if job.retries else "not again if it fails"
        lines.append(("then", f"{again}; {_end(job.ends_cluster, job.lingers_s)}"))
    width = max(len(word) for word, _ in lines)
    return "\n".join(f"  {word:<{width}}  {text}" for word, text in lines)


def _start(plan: ClusterPlan) -> list[tuple[str, str]]:
    lines = []
    if plan.head is not None:
        work = "no training and no decoding" if not plan.head.cpus else f"offers {plan.head.offer} to work as well"
        lines.append(("starts", f"the head{_machine(plan.head)}: {work}"))
    first = [group for group in plan.workers if group.fewest]
    for group in first:
        lines.append(("", f"{group.fewest} × {group.name}{_machine(group)}{_offer(group)}"))
    if not first:
        lines.append(("", "no worker until a job asks for one"))
    return lines


def _growth(plan: ClusterPlan) -> list[tuple[str, str]]:
    lines = [("grows", "when a job asks for more workers or decode CPUs than there are (a new machine takes minutes):")]
    most = plan.most_workers
    for group in sorted(plan.workers, key=lambda group: (not group.gpus, -group.priority)):
        if not group.most:
            continue
        up_to = group.most if most is None else min(group.most, most)
        lines.append(("", f"{group.name}: up to {up_to}{_machine(group)}{_offer(group)}{_role(group, plan)}"))
    if most is not None and most < sum(group.most for group in plan.workers):
        lines.append(("", f"at most {most} workers together"))
    return lines


def _role(group: Group, plan: ClusterPlan) -> str:
    words = ", trains" if group.gpus else ", decodes" if group.resources is not None else ""
    if group.is_spot:
        return f"{words}, spot"
    twins = [other for other in plan.workers if other.is_spot and other.resources == group.resources]
    return f"{words}, when {twins[0].name} cannot be had" if twins else words


def _shrinking(plan: ClusterPlan) -> str:
    own = {group.name: group.idle_s for group in plan.workers if group.idle_s is not None}
    usual = f"a worker goes after {_minutes(plan.idle_s)} without work" if plan.idle_s is not None else ""
    special = ", ".join(f"{name} after {_minutes(idle_s)}" for name, idle_s in own.items())
    kept = [f"{group.fewest} × {group.name}" for group in plan.workers if group.fewest]
    text = "; ".join(part for part in (usual, special) if part) or "a worker goes after Ray's own idle time"
    return text + (f"; {' and '.join(kept)} always stay" if kept else "; only the head stays")


def _machine(group: Group) -> str:
    return f" {group.machine}" if group.machine else ""


def _offer(group: Group) -> str:
    return f" ({group.offer} each)" if group.resources is not None else ""


def _minutes(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    minutes = seconds / 60
    return f"{minutes:g} minute{'s' if minutes != 1 else ''}"


def _end(ends_cluster: bool, lingers_s: float) -> str:
    if not ends_cluster:
        return "the cluster stays when the job ends"
    return "the cluster goes when the job ends" + (f", after {_minutes(lingers_s)}" if lingers_s else "")
