"""What is about to happen, in a few lines, before it does."""

from __future__ import annotations

from lerobot_ray.hub.client import url_of
from lerobot_ray.hub.preflight import PushPlan
from lerobot_ray.on_ray.cluster import Workers
from lerobot_ray.on_ray.memory import memory_line
from lerobot_ray.on_ray.run_setup import RunSetup
from lerobot_ray.tracking.build import where_to_look


def hub_line(plan: PushPlan) -> str:
    """What goes to the Hub."""
    what = ["each checkpoint" if plan.what == "all" else "the model of each checkpoint"] if plan.checkpoints else []
    what += ["the finished policy"] if plan.policy else []
    return f"{' and '.join(what)} to {url_of(plan.repo_id)}"


def banner(setup: RunSetup, workers: Workers, *, where: str) -> str:
    """Devices, batch arithmetic, amount of data, where results go."""
    config, batching = setup.config, setup.batching(workers.count)
    selection = setup.spec.selection
    device = "GPU" if workers.use_gpu else str(config.policy.device).upper()  # type: ignore[union-attr]
    count = f"{workers.count} × {device}" + (f" (at least {workers.fewest})" if workers.fewest < workers.count else "")
    epochs = config.steps * setup.global_batch / setup.num_samples
    held_out = f", {len(setup.held_out_ids)} samples held out" if setup.held_out_ids is not None else ""
    lines = [
        ("policy", f"{config.policy.type} on {setup.spec.metadata.repo_id}"),  # type: ignore[union-attr]
        *([("adapter", adapter_line(setup))] if setup.adapter is not None else []),
        ("workers", f"{count}, {where}"),
        (
            "batch",
            f"{batching.micro_batch} × {workers.count} workers × {batching.accumulation_steps} accumulated "
            f"= {batching.global_batch} samples per step",
        ),
        *((("memory", text),) if (text := memory_line(setup, workers.count)) else ()),
        (
            "data",
            f"{setup.num_samples} samples in {len(selection.episodes)} episodes, order {setup.order.name}{held_out}",
        ),
        ("steps", f"{config.steps} ({epochs:.3g} epochs)"),
        ("begins", f"with {setup.resume_from}" if setup.resume_from else "fresh"),
        ("results", str(setup.output_dir)),
        *([("copied to", setup.store.url)] if setup.store is not None else []),
        *([("Hub", hub_line(setup.push))] if setup.push is not None else []),
        *(line.split(": ", 1) for line in where_to_look(setup.tracking)),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:>{width}}  {value}" for name, value in lines)


def adapter_line(setup: RunSetup) -> str:
    """The adapter's method, its base, and how little of the policy is trained."""
    plan, size = setup.adapter, setup.adapter_size
    assert plan is not None
    settings = plan.settings or {"peft_type": plan.peft.method_type.upper(), "r": plan.peft.r}  # type: ignore[union-attr]
    rank = f" of rank {settings['r']}" if settings.get("r") else ""
    text = f"{settings['peft_type']}{rank} on {plan.base}"
    if size is None:
        return text
    share = 100 * size.trained / max(1, size.total)
    return f"{text}: {size.trained:,} parameters trained of {size.total:,} ({share:.2g} %)"
