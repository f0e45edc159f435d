"""Whether a sweep fits the training run it varies: parameters are flags, values have their types, the metric is logged.

All of it is asked before the first trial, of the parser that reads the trials' own flags.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError, LerobotRayError, nearest
from lerobot_ray.sweeps.flags import refuse_swept_flags, trial_config
from lerobot_ray.sweeps.population import interval_of
from lerobot_ray.sweeps.space import Branch, Space, Values, active
from lerobot_ray.sweeps.sweep_file import SweepConfig

logger = logging.getLogger(__name__)

FIXED = ("output_dir", "resume", "config_path", "job_name", "num_workers", "best_metric")
FIXED_SECTIONS = ("ray", "job", "mlflow", "wandb", "hub")
TRAIN_METRICS = (
    "loss",
    "grad_norm",
    "lr",
    "step_s",
    "dataloading_s",
    "preprocessing_s",
    "update_s",
    "checkpoint_s",
    "samples_per_s",
    "mem_gb",
    "gpu_mem_gb",
    "skipped_steps",
)
POLICY_METRICS = {"act": ("l1_loss", "kld_loss"), "diffusion": ()}
"""What native policies report beside the loss."""
CHANGEABLE = ("optimizer.", "policy.optimizer_", "dataset.image_transforms.", "ema.")
CHANGEABLE_NAMES = ("batch_size", "policy.dropout", "policy.kl_weight", "global_batch_size")
"""What may change in the middle of a training run, as population based training changes it."""


def check_fit(sweep: SweepConfig, words: Sequence[str], *, seeds: int, file: str) -> TrainConfig:
    """The run of a trial as it might be. ConfigError in the sweep file's words when the two do not fit together."""
    space = sweep.space
    refuse_swept_flags(words, list(space))
    for name in space:
        if name in FIXED or name.split(".")[0] in FIXED_SECTIONS:
            raise ConfigError(f"{file}: parameters.{name} is the same for all trials. Give it as a flag.")
        if name == "seed" and seeds > 1:
            raise ConfigError(f"{file}: seed is swept, and --sweep_seeds={seeds} sweeps it too. Use one of the two.")
    _check_searcher(sweep, file)
    first = first_values(space)
    for name, branches in space.items():
        for branch in branches:
            for value in branch.values.samples() if not branch.values.same_as else ():
                _check_value(words, {**first, **_fulfilled(branch), name: value}, name, branch, space, file)
    config = trial_config(words, first)
    check_metric(sweep, config, file)
    if sweep.scheduler.type == "pbt":
        _check_population(sweep, config, seeds, file)
    return config


def first_values(space: Space) -> dict[str, Any]:
    """One set of values, of the first of every parameter."""
    values: dict[str, Any] = {}
    for name, branches in space.items():
        found = active(branches, values)
        if found is not None:
            values[name] = values.get(found.same_as) if found.same_as else found.samples()[0]
    return values


def _fulfilled(branch: Branch) -> dict[str, Any]:
    return {name: wanted[0] for name, wanted in branch.when.items()}


def _check_value(
    words: Sequence[str], values: Mapping[str, Any], name: str, branch: Branch, space: Space, file: str
) -> None:
    values = _consistent(values, name, space)
    try:
        trial_config(words, values)
    except LerobotRayError as error:
        text = str(error)
        hint = ""
        if "expected a whole number" in text and not branch.values.is_whole and branch.values.kind:
            hint = f" Use {'lograndint' if branch.values.is_log else 'randint'} for whole numbers."
        what = f"parameters.{name}={branch.values.text}"
        raise ConfigError(f"{file}: {what} does not fit the training flags: {text}{hint}") from error


def _consistent(values: Mapping[str, Any], fixed: str, space: Space) -> dict[str, Any]:
    """The values with those that follow from others put right, and those without a branch that holds left out."""
    made: dict[str, Any] = {}
    for name, branches in space.items():
        found = active(branches, {**values, **made} if name == fixed else made)
        if name == fixed:
            made[name] = values[name]
        elif found is not None:
            made[name] = _taken(values, name, found, made)
    return made


def _taken(values: Mapping[str, Any], name: str, found: Values, made: Mapping[str, Any]) -> Any:
    if found.same_as:
        return made.get(found.same_as)
    samples = found.samples()
    if found.choices is not None:
        return values[name] if values.get(name) in samples else samples[0]
    return values.get(name, samples[0])


def _check_searcher(sweep: SweepConfig, file: str) -> None:
    if sweep.searcher.type != "grid":
        return
    for name, branches in sweep.space.items():
        for branch in branches:
            if branch.values.kind:
                raise ConfigError(
                    f"{file}: searcher grid tries lists of values, and parameters.{name}={branch.values.text} is a "
                    "range. List the values, write logspace(low, high, count) or linspace(…), or use searcher: random."
                )


def check_metric(sweep: SweepConfig, config: TrainConfig, file: str) -> None:
    """ConfigError when no trial would report the metric, as far as that can be known before one runs."""
    metric = sweep.metric
    kind = config.policy.type if config.policy else ""
    known = [f"train/{name}" for name in (*TRAIN_METRICS, *POLICY_METRICS.get(kind, ()))]
    known += ["eval/loss", "eval/pc_success", "eval/avg_sum_reward", "eval/avg_max_reward", "eval/eval_s"]
    where = f"{file}: metric={metric}"
    is_native = kind in POLICY_METRICS
    if metric not in known and (is_native or not metric.startswith(("train/", "eval/"))):
        near = nearest(metric, known) or nearest(metric.split("/")[-1], [name.split("/")[1] for name in known])
        full = near if near is None or "/" in near else next(name for name in known if name.endswith(f"/{near}"))
        raise ConfigError(f"{where}: no trial reports it." + (f" Did you mean {full}?" if full else ""))
    if metric == "eval/loss" and config.eval_steps == 0:
        raise ConfigError(
            f"{where} is the loss on held-out episodes, and none is computed. Add --dataset.eval_split=0.1 and "
            "--eval_steps=<steps>."
        )
    is_played = metric.startswith("eval/") and metric != "eval/loss"
    if is_played and (config.env is None or config.env_eval_freq == 0):
        raise ConfigError(f"{where} comes from rollouts, and there are none. Add --env.type=… and --env_eval_freq=….")
    interval, last = reported_every(metric, config), sweep.stop.steps
    if is_played and last is not None and last < min(interval, config.steps):
        raise ConfigError(f"{where} is reported every {interval} steps, and trials end at step {last} (stop.steps).")
    if interval > config.steps and not metric.startswith("train/"):
        logger.warning("%s is reported at the last step only: it comes every %d steps", metric, interval)


def reported_every(metric: str, config: TrainConfig) -> int:
    """Steps between two reports of the metric."""
    if metric == "eval/loss":
        return config.eval_steps
    return config.env_eval_freq if metric.startswith("eval/") else config.log_freq


def _check_population(sweep: SweepConfig, config: TrainConfig, seeds: int, file: str) -> None:
    if not config.save_checkpoint:
        raise ConfigError("trials of a population go on from one another's checkpoints: leave save_checkpoint on.")
    interval, often = interval_of(sweep, steps=config.steps), reported_every(sweep.metric, config)
    if often > interval:
        flag = {"eval/loss": "eval_steps"}.get(
            sweep.metric, "log_freq" if "train/" in sweep.metric else "env_eval_freq"
        )
        raise ConfigError(
            f"{file}: trials are compared every {interval} steps (scheduler.interval), but report {sweep.metric} every "
            f"{often}. Lower --{flag}, or raise the interval."
        )
    if seeds > 1:
        raise ConfigError("--sweep_seeds repeats trials, and trials of a population cannot be repeated. Leave it out.")
    if sweep.searcher.type == "grid":
        raise ConfigError(f"{file}: a population begins with drawn values. Use searcher: random.")
    if (sweep.num_trials or 0) < 2:
        raise ConfigError(f"{file}: num_trials={sweep.num_trials}: a population needs at least 2 trials.")
    for name, branches in sweep.space.items():
        if not name.startswith(CHANGEABLE) and name not in CHANGEABLE_NAMES:
            raise ConfigError(
                f"{file}: parameters.{name}: population based training changes values while a policy is trained, and "
                f"this one cannot change then. It may change {', '.join(CHANGEABLE_NAMES)} and optimizer.*."
            )
        if any(branch.when or branch.values.same_as for branch in branches):
            raise ConfigError(f"{file}: parameters.{name}: a population takes no conditions.")
