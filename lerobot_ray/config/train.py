"""The root: one training run, and the checks that concern more than one section. LeRobot's names come first."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lerobot_ray.config.dataset import DatasetConfig
from lerobot_ray.config.ema import EmaConfig
from lerobot_ray.config.env import EnvConfig
from lerobot_ray.config.env import for_lerobot as env_for_lerobot
from lerobot_ray.config.eval import EvalConfig
from lerobot_ray.config.hub import HubConfig
from lerobot_ray.config.job import JobConfig
from lerobot_ray.config.marks import HIDDEN, NEWER, OURS, in_lerobot, refused, unused
from lerobot_ray.config.optim import OptimizerConfig, SchedulerConfig
from lerobot_ray.config.parallel import AcceleratorConfig, ParallelismConfig, micro_batches
from lerobot_ray.config.peft import PeftConfig
from lerobot_ray.config.policy import PolicyConfig
from lerobot_ray.config.ray import RayConfig
from lerobot_ray.config.tracking import MLflowConfig, WandBConfig
from lerobot_ray.config.weighting import SampleWeightingConfig
from lerobot_ray.core.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime

LEROBOT_NUM_WORKERS = 4


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    dataset: DatasetConfig
    env: EnvConfig | None = field(default=None, metadata=in_lerobot(env_for_lerobot))
    """Environment for rollouts; null: none."""
    policy: PolicyConfig | None = None
    """The policy: `policy.type=act` for a fresh one, `policy.path=<folder or repo>` for a pretrained one."""
    reward_model: None = field(
        default=None, metadata=refused("reward models are not trained here; lerobot-train trains them")
    )
    """Not trained here."""
    output_dir: Path | None = None
    """Where results go; null: outputs/train/<date>/<time>_<job_name>."""
    job_name: str | None = None
    """Name of the run; null: the policy's type, after the environment's."""
    resume: bool | Literal["auto"] = field(default=False, metadata=in_lerobot(lambda resume: resume is True))
    """true: continue the checkpoint that `config_path` names. auto: continue if `output_dir` holds a complete
    checkpoint, start otherwise, so that one command line can be run again and again."""
    seed: int | None = 1000
    """Seed of the sample order, of noise and of fresh weights; null counts as 0."""
    cudnn_deterministic: bool = False
    """Only deterministic cuDNN kernels: slower, repeatable to the bit."""
    num_workers: int | None = field(
        default=None, metadata=in_lerobot(lambda count: LEROBOT_NUM_WORKERS if count is None else count)
    )
    """Decode actors per training process, anywhere in the cluster; 0: it decodes by itself; null: as many as the CPUs
    that training leaves free."""
    batch_size: int = 8
    """Samples per forward pass on one worker; the one to lower when memory runs out."""
    prefetch_factor: int = 4
    """Batches kept ready ahead of training, about: they travel several at a time."""
    persistent_workers: bool = field(default=True, metadata=unused("decode actors live as long as the run"))
    """Part of LeRobot's data loader."""
    dataloader_multiprocessing_context: Literal["spawn", "fork", "forkserver"] | None = field(
        default="spawn", metadata=unused("frames are decoded in Ray actors, not in loader processes")
    )
    """Part of LeRobot's data loader."""
    steps: int = 100_000
    """Optimizer steps of the whole run."""
    env_eval_freq: int = 20_000
    """Play episodes in `env` every so many steps; 0: never."""
    log_freq: int = 200
    """Log every so many steps."""
    eval_steps: int = 0
    """Compute the held-out loss every so many steps (needs `dataset.eval_split`); 0: never."""
    max_eval_samples: int = 0
    """Use at most so many held-out samples, spread over tasks; 0: all."""
    tolerance_s: float = 1e-4
    """How far a video frame may be from the time it is asked for, in seconds."""
    save_checkpoint: bool = True
    """Write checkpoints at all."""
    save_freq: int = 20_000
    """Write one every so many steps, and always the last; 0: only the last."""
    use_policy_training_preset: bool = True
    """Start from the policy's own optimizer and schedule, and apply what `optimizer.*` and `scheduler.*` say on top."""
    optimizer: OptimizerConfig | None = None
    """Optimizer; null: the policy's."""
    scheduler: SchedulerConfig | None = None
    """Learning-rate schedule; null on the command line: constant."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    wandb: WandBConfig = field(default_factory=WandBConfig)
    peft: PeftConfig | None = None
    """Train an adapter in place of the whole policy; any `peft.*` flag turns it on."""
    job: JobConfig = field(default_factory=JobConfig)
    save_checkpoint_to_hub: bool = False
    """Upload every checkpoint to `policy.repo_id`, tagged with its step."""
    sample_weighting: SampleWeightingConfig | None = None
    """Weight samples in the loss; any `sample_weighting.*` flag turns it on."""
    rename_map: dict[str, str] = field(default_factory=dict)
    """Dataset key -> policy key, to fit a pretrained policy to other camera names."""
    checkpoint_path: Path | None = field(default=None, metadata=HIDDEN)
    """The checkpoint folder that `resume` continues. Found from `config_path`; not a flag."""

    checkpoint_format: Literal["safetensors", "dcp", "safetensors_dcp"] = field(default="safetensors", metadata=NEWER)
    """How checkpoints are stored: whole files, in parts that each worker writes its own of, or weights both ways."""
    parallelism: ParallelismConfig = field(default_factory=ParallelismConfig, metadata=NEWER)
    accelerator: AcceleratorConfig = field(default_factory=AcceleratorConfig, metadata=NEWER)
    ema: EmaConfig = field(default_factory=EmaConfig, metadata=NEWER)

    global_batch_size: int | None = field(default=None, metadata=OURS)
    """Samples per optimizer step over all workers, kept when their number changes by accumulating; null: `batch_size`
    times workers times `accelerator.gradient_accumulation.steps`."""
    audit: bool = field(default=False, metadata=OURS)
    """Record step, rank, episode and frame of every sample trained on, under `output_dir`/audit."""
    keep_last: int | None = field(default=None, metadata=OURS)
    """Keep only so many of the newest checkpoints; null: all."""
    keep_every: int | None = field(default=None, metadata=OURS)
    """Keep checkpoints of every so many steps in any case."""
    best_metric: str | None = field(default=None, metadata=OURS)
    """Keep the best checkpoint by this metric in any case: eval/loss (smallest) or eval/pc_success (largest)."""
    on_nonfinite: Literal["stop", "skip"] = field(default="stop", metadata=OURS)
    """When a loss is not finite: stop and name the samples, or skip the step and count it."""
    ray: RayConfig = field(default_factory=RayConfig, metadata=OURS)
    mlflow: MLflowConfig = field(default_factory=MLflowConfig, metadata=OURS)
    hub: HubConfig = field(default_factory=HubConfig, metadata=OURS)

    def __post_init__(self) -> None:
        if self.policy is None:
            raise ConfigError("no policy. Give --policy.type=act (or another type), or --policy.path=<folder or repo>.")
        self._check_counts()
        self._check_batch()
        self._check_evaluation()
        self._check_policy(self.policy)

    def _check_counts(self) -> None:
        for name in ("batch_size", "steps", "log_freq", "prefetch_factor"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("eval_steps", "max_eval_samples"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} is negative; 0 is the default.")
        for name in ("keep_last", "keep_every"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ConfigError(f"{name}={count} must be at least 1, or null.")
        if self.num_workers is not None and self.num_workers < 0:
            raise ConfigError(f"num_workers={self.num_workers} is negative; null means automatic.")
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"seed={self.seed} is negative.")
        if not self.tolerance_s > 0:
            raise ConfigError(f"tolerance_s={self.tolerance_s:g} must be more than 0.")

    def _check_batch(self) -> None:
        if self.global_batch_size is None:
            return
        if self.global_batch_size < 1:
            raise ConfigError(f"global_batch_size={self.global_batch_size} must be at least 1, or null.")
        if self.accelerator.gradient_accumulation.steps != 1:
            raise ConfigError(
                "global_batch_size already decides how often gradients are accumulated. "
                "Leave out accelerator.gradient_accumulation.steps, or global_batch_size."
            )

    def _check_evaluation(self) -> None:
        if self.eval_steps > 0 and self.dataset.eval_split == 0.0:
            raise ConfigError(
                f"eval_steps={self.eval_steps}, but no episodes are held out. "
                "Add --dataset.eval_split=0.1, or leave eval_steps at 0."
            )

    def _check_policy(self, policy: PolicyConfig) -> None:
        has_base = policy.pretrained_path is not None or self.checkpoint_path is not None
        if self.rename_map and not has_base:
            raise ConfigError(
                "rename_map fits a dataset to a pretrained policy, but the policy is a fresh one. "
                "Add --policy.path=<folder or repo>, or leave out rename_map."
            )
        if self.peft is not None and not has_base:
            raise ConfigError(
                "peft trains an adapter on a frozen pretrained policy; on a fresh one it would adapt random weights. "
                "Add --policy.path=<folder or repo>, or leave out peft."
            )
        if policy.use_peft and not has_base:
            raise ConfigError(
                "policy.use_peft says that weights are an adapter's. Add --policy.path=<its folder or repo>."
            )
        if self.save_checkpoint_to_hub and not policy.repo_id:
            raise ConfigError("save_checkpoint_to_hub needs a repository. Add --policy.repo_id=<user>/<name>.")
        if not self.use_policy_training_preset and self.optimizer is None:
            raise ConfigError("use_policy_training_preset=false needs an optimizer. Add --optimizer.type=adamw.")
        if (
            self.sample_weighting is not None
            and self.sample_weighting.type == "rabc"
            and not hasattr(policy, "chunk_size")
        ):
            raise ConfigError(
                f"sample_weighting.type=rabc measures progress over a policy's chunk_size, which {policy.type} has not."
            )


def global_batch(config: TrainConfig, world_size: int) -> int:
    """Samples per optimizer step over all workers; ConfigError when they cannot be shared out evenly."""
    if config.global_batch_size is None:
        return config.batch_size * world_size * config.accelerator.gradient_accumulation.steps
    if config.global_batch_size % world_size:
        below = config.global_batch_size // world_size * world_size
        raise ConfigError(
            f"global_batch_size={config.global_batch_size} cannot be shared out evenly over {world_size} workers. "
            f"Try {below + world_size}" + (f" or {below}." if below else ".")
        )
    return config.global_batch_size


def micro_batch(config: TrainConfig, world_size: int) -> int:
    """Samples per forward pass on one worker: `batch_size`, or less where `global_batch_size` asks for equal parts."""
    return micro_batches(global_batch(config, world_size) // world_size, largest=config.batch_size)[0]


def accumulation_steps(config: TrainConfig, world_size: int) -> int:
    """Forward passes per optimizer step on one worker."""
    return micro_batches(global_batch(config, world_size) // world_size, largest=config.batch_size)[1]


def pushes_to_hub(config: TrainConfig) -> bool:
    """Whether the trained policy is published: wanted by default, possible only with a repository."""
    return config.policy is not None and config.policy.push_to_hub and bool(config.policy.repo_id)


def run_name(config: TrainConfig) -> str:
    """What the run is called."""
    kinds = [section.type for section in (config.env, config.policy) if section is not None]
    return config.job_name or "_".join(kinds)


def default_output_dir(config: TrainConfig, now: datetime) -> Path:
    """Where results go when nobody says: LeRobot's place."""
    return Path("outputs/train") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{run_name(config)}"
