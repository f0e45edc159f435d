"""What one run is: settled once on the driver (`plan_run`), the same for every start of its workers, however many."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerobot_ray.checkpoint.store import RunStore
from lerobot_ray.config.parallel import micro_batches
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.types import Stats
from lerobot_ray.data.order import Order
from lerobot_ray.data.sample import SampleSpec
from lerobot_ray.hub.preflight import PushPlan
from lerobot_ray.policies.adapters.plan import AdapterPlan, AdapterSize
from lerobot_ray.processing import Pipeline
from lerobot_ray.tracking.build import TrackingPlan


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How a step is shared out. The global batch is fixed for the run; the rest follows from the number of workers."""

    global_batch: int
    micro_batch: int
    accumulation_steps: int


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """One run, ready to be started on any number of workers. Picklable."""

    config: TrainConfig
    """With absolute paths and the policy's features filled in."""
    output_dir: Path
    seed: int
    spec: SampleSpec
    order: Order
    global_batch: int
    preprocessor: Pipeline
    postprocessor: Pipeline
    tracking: TrackingPlan
    stats: Stats | None
    held_out: SampleSpec | None = None
    held_out_ids: np.ndarray | None = None
    """Sample ids of `held_out` to evaluate on."""
    resume_from: Path | None = None
    """The checkpoint this run continues, unless it has written a newer one itself."""
    adapter: AdapterPlan | None = None
    """What is trained in place of the whole policy."""
    adapter_size: AdapterSize | None = None
    not_ours: tuple[tuple[str, int], ...] = ()
    """Checkpoints in the output folder that this run does not continue: (name, time of its manifest)."""
    stop_at: int | None = None
    """Leave after this step, with a checkpoint, although `config.steps` are more: the schedule is that of all steps."""
    keeps_own_rates: bool = False
    """Of a checkpoint it continues, take weights and moments, but not the optimizer's settings: they are this run's."""
    runs_at_once: int = 1
    """Runs like this one that share the cluster."""
    most_cpus: float = 0.0
    """CPUs of the cluster when it has grown to its limits, as far as the driver knows."""
    cluster_grows: bool = False
    """Whether nodes come and go with what is asked for."""
    asks_every_s: float = 2.0
    """How often, about, its workers ask whether to stop."""
    pretrained: Path | None = None
    """The folder on the driver with the policy this run starts from; other nodes fetch their own copy."""
    push: PushPlan | None = None
    """What goes to the Hub."""
    store: RunStore | None = None
    """Where in an object store the run is copied to."""

    @property
    def num_samples(self) -> int:
        return self.order.num_samples

    @property
    def publishes(self) -> bool:
        """Whether the finished policy goes to the Hub, so that the last step is saved in any case."""
        return self.push is not None and self.push.policy

    def batching(self, world_size: int) -> Batching:
        """ConfigError when the global batch cannot be shared out evenly."""
        if self.global_batch % world_size:
            raise ConfigError(
                f"a global batch of {self.global_batch} cannot be shared out evenly over {world_size} workers."
            )
        micro, accumulation = micro_batches(self.global_batch // world_size, largest=self.config.batch_size)
        return Batching(global_batch=self.global_batch, micro_batch=micro, accumulation_steps=accumulation)
