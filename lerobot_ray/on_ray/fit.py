"""`TorchTrainer` as a run uses it, in a thread: the main one listens to signals and to the board."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lerobot_ray.config.ray import RayConfig
from lerobot_ray.on_ray.cluster import Workers
from lerobot_ray.on_ray.run_folder import RAY_DIR
from lerobot_ray.on_ray.run_setup import RunSetup


class Fit(threading.Thread):
    """`TorchTrainer.fit`, so that the main thread can listen to signals and to the board."""

    def __init__(self, setup: RunSetup, workers: Workers, board: Any) -> None:
        super().__init__(daemon=True, name="fit")
        from lerobot_ray.on_ray.worker import train_worker

        self._trainer = torch_trainer(
            train_worker,
            {"setup": setup, "board": board},
            workers,
            folder=setup.output_dir,
            config=setup.config.ray,
            max_failures=setup.config.ray.max_failures,
        )
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self.error = error


def environment(config: RayConfig) -> dict[str, str]:
    """Ray Train's settings that are environment variables."""
    return {
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # its copies of what workers print would reach the terminal
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        # a process that is frozen answers to nobody, so that no collective of its own would ever end it
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(config.hang_timeout_s),
    }


def torch_trainer(
    loop: Callable[[dict[str, Any]], Any],
    arguments: dict[str, Any],
    workers: Workers,
    *,
    folder: Path,
    config: RayConfig,
    max_failures: int,
) -> Any:
    """Ray's trainer over `loop(arguments)` on every worker; its own small files go below `folder`."""
    os.environ.update(environment(config))  # read by this process and handed on to the controller
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    from lerobot_ray.on_ray.token import hub_environment

    v2: Any = ray.train  # for type checkers it has the names of the older API
    return TorchTrainer(
        loop,
        train_loop_config=arguments,
        torch_config=TorchConfig(timeout_s=math.ceil(config.hang_timeout_s)),
        scaling_config=v2.ScalingConfig(
            num_workers=workers.count if workers.fewest == workers.count else (workers.fewest, workers.count),
            use_gpu=workers.use_gpu,
            resources_per_worker=dict(workers.resources),
            placement_strategy=config.placement_strategy,
            elastic_resize_monitor_interval_s=config.resize_interval_s,
        ),
        run_config=v2.RunConfig(
            name=f"run-{os.getpid()}-{os.urandom(3).hex()}",  # a known name would have Ray resume by itself
            storage_path=str(folder / RAY_DIR),
            failure_config=v2.FailureConfig(max_failures=max_failures),
            worker_runtime_env={"env_vars": environment(config) | hub_environment()},
            logging_config=v2.LoggingConfig(log_level="ERROR"),
        ),
    )
