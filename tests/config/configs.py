"""Runs for the config tests: a minimal command line, and any run at all for property tests."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from lerobot_ray.config.dataset import DatasetConfig, ImageTransformConfig, ImageTransformsConfig
from lerobot_ray.config.ema import EmaConfig
from lerobot_ray.config.env import GymEnvConfig, PushtEnvConfig, ReachEnvConfig
from lerobot_ray.config.eval import EvalConfig
from lerobot_ray.config.hub import HubConfig
from lerobot_ray.config.job import JobConfig
from lerobot_ray.config.optim import (
    AdamConfig,
    AdamWConfig,
    ConstantWithWarmupSchedulerConfig,
    CosineDecayWithWarmupSchedulerConfig,
    DiffuserSchedulerConfig,
    MultiAdamConfig,
    SGDConfig,
)
from lerobot_ray.config.parallel import (
    AcceleratorConfig,
    CompileConfig,
    DdpConfig,
    FsdpConfig,
    ParallelismConfig,
)
from lerobot_ray.config.peft import PeftConfig
from lerobot_ray.config.ray import RayConfig
from lerobot_ray.config.tracking import MLflowConfig, WandBConfig
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.config.weighting import SampleWeightingConfig
from lerobot_ray.core.types import FeatureType, PolicyFeature
from lerobot_ray.policies.act.config import ACTConfig
from lerobot_ray.policies.diffusion.config import DiffusionConfig

MINIMAL = ["--dataset.repo_id=user/data", "--policy.type=act"]

# words that YAML would read as something else
texts = st.one_of(
    st.sampled_from(["005000", "no", "null", "1e-4", "true", "a: b", "[x]", "auto", "", " ", "2024-01-01", "ä", "'q'"]),
    st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12),
)
names = texts.filter(bool)
counts, positive = st.integers(0, 10**6), st.integers(1, 10**6)
shares = st.floats(0.0, 0.99)
rates = st.floats(0.0, 1.0)
resources = st.dictionaries(st.sampled_from(["CPU", "GPU", "TPU"]), st.floats(0, 8), max_size=2)
episodes = st.none() | st.lists(st.integers(0, 500), min_size=1, max_size=5, unique=True)
json_values = st.recursive(st.none() | st.booleans() | st.integers() | rates | texts, lambda v: st.lists(v, max_size=2))
json_objects = st.dictionaries(names, json_values, max_size=2)


def maybe(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | values


transform_kwargs = st.dictionaries(names, st.lists(rates, max_size=2), max_size=2)
transforms = st.builds(ImageTransformConfig, weight=rates, type=texts, kwargs=transform_kwargs)
datasets = st.builds(
    DatasetConfig,
    repo_id=names,
    root=maybe(texts),
    episodes=episodes,
    image_transforms=st.builds(
        ImageTransformsConfig,
        enable=st.booleans(),
        max_num_transforms=counts,
        tfs=st.dictionaries(names, transforms, max_size=2),
    ),
    revision=maybe(texts),
    video_backend=st.sampled_from(["pyav", "torchcodec"]),
    depth_output_unit=st.sampled_from(["mm", "m"]),
    streaming=st.booleans(),
    eval_split=st.floats(0.01, 0.99),
    exclude_episodes=episodes,
    order=st.sampled_from([None, "frames", "shards", "lerobot", "sequential"]),
    shard_frames=positive,
    cache=st.sampled_from(["none", "memory", "disk"]),
    cache_dir=maybe(texts),
    on_bad_episode=st.sampled_from(["stop", "skip"]),
)
features = st.dictionaries(
    names,
    st.builds(
        PolicyFeature,
        type=st.sampled_from(FeatureType),
        shape=st.lists(st.integers(1, 512), max_size=3).map(tuple),
    ),
    max_size=3,
)
common = {
    "input_features": features,
    "output_features": features,
    "device": maybe(st.sampled_from(["cpu", "cuda", "mps"])),
    "push_to_hub": st.booleans(),
    "repo_id": names,
    "tags": maybe(st.lists(texts, max_size=2)),
    "private": maybe(st.booleans()),
    "pretrained_path": names,
    "pretrained_revision": maybe(texts),
}
policies = st.one_of(
    st.builds(ACTConfig, **common, dropout=shares, kl_weight=rates, optimizer_lr=rates),
    st.builds(DiffusionConfig, **common, optimizer_lr=rates, noise_scheduler_type=st.sampled_from(["DDPM", "DDIM"])),
)
optimizers = st.one_of(
    st.builds(AdamConfig, lr=rates, betas=st.tuples(shares, shares)),
    st.builds(AdamWConfig, lr=rates, weight_decay=rates, grad_clip_norm=rates),
    st.builds(SGDConfig, lr=rates, momentum=rates, nesterov=st.booleans()),
    st.builds(MultiAdamConfig, optimizer_groups=st.dictionaries(names, json_objects, max_size=2)),
)
schedulers = st.one_of(
    st.none(),
    st.builds(DiffuserSchedulerConfig, num_warmup_steps=maybe(counts)),
    st.builds(ConstantWithWarmupSchedulerConfig, num_warmup_steps=counts),
    st.builds(
        CosineDecayWithWarmupSchedulerConfig,
        num_warmup_steps=counts,
        num_decay_steps=counts,
        peak_lr=rates,
        decay_lr=rates,
    ),
)
environments = st.one_of(
    st.none(),
    st.builds(ReachEnvConfig, fps=positive),
    st.builds(GymEnvConfig, task=maybe(texts), kwargs=json_objects),
    st.builds(PushtEnvConfig, obs_type=texts, features=features),
)
accelerators = st.builds(
    AcceleratorConfig,
    mixed_precision=st.sampled_from([None, "no", "fp16", "bf16"]),
    fsdp=st.builds(FsdpConfig, wrap_modules=maybe(st.lists(texts, max_size=2)), cpu_offload=st.booleans()),
    ddp=st.builds(DdpConfig, static_graph=st.booleans()),
    compile=st.builds(CompileConfig, enabled=st.booleans(), mode=maybe(texts)),
)
runs = st.builds(
    TrainConfig,
    dataset=datasets,
    env=environments,
    policy=policies,
    output_dir=maybe(st.sampled_from(["outputs/a", "/tmp/b"]).map(Path)),
    job_name=maybe(texts),
    resume=st.sampled_from([False, True, "auto"]),
    seed=maybe(counts),
    num_workers=maybe(st.integers(0, 64)),
    batch_size=positive,
    dataloader_multiprocessing_context=st.sampled_from([None, "spawn", "fork"]),
    steps=positive,
    eval_steps=counts,
    tolerance_s=st.floats(1e-6, 1.0),
    save_freq=st.integers(-1, 100),
    optimizer=optimizers,
    scheduler=schedulers,
    eval=st.builds(EvalConfig, n_episodes=positive, num_actors=positive, resources_per_actor=maybe(resources)),
    wandb=st.builds(WandBConfig, enable=st.booleans(), notes=maybe(texts), mode=st.sampled_from([None, "offline"])),
    peft=maybe(st.builds(PeftConfig, target_modules=maybe(texts | st.lists(texts, max_size=2)), r=positive)),
    job=st.builds(
        JobConfig,
        target=st.sampled_from([None, "local", "ray", "a10g-small"]),
        image=maybe(texts.filter(bool)),
        tags=st.lists(texts, max_size=2),
        retries=counts,
    ),
    sample_weighting=maybe(st.builds(SampleWeightingConfig, type=st.just("uniform"), extra_params=json_objects)),
    rename_map=st.dictionaries(names, texts, max_size=2),
    checkpoint_path=maybe(st.sampled_from(["outputs/a/checkpoints/000010"]).map(Path)),
    checkpoint_format=st.sampled_from(["safetensors", "dcp"]),
    parallelism=st.builds(ParallelismConfig, dp_replicate=positive, dp_shard=st.sampled_from([1, 4, -1])),
    accelerator=accelerators,
    ema=st.builds(EmaConfig, enable=st.booleans(), decay=maybe(shares), use_for_eval=st.booleans()),
    global_batch_size=maybe(positive),
    audit=st.booleans(),
    keep_last=maybe(positive),
    best_metric=maybe(texts),
    on_nonfinite=st.sampled_from(["stop", "skip"]),
    ray=st.one_of(
        st.builds(RayConfig, address=maybe(texts), use_gpu=maybe(st.just(True)), resources_per_worker=maybe(resources)),
        st.builds(RayConfig, use_gpu=st.just(False), max_failures=counts),
    ),
    mlflow=st.builds(MLflowConfig, enable=st.booleans(), tracking_uri=maybe(texts)),
    hub=st.builds(HubConfig, what=st.sampled_from(["all", "model"])),
)
"""Runs with something in nearly every setting; `pretrained_path` is always set, so that adapters are allowed."""
