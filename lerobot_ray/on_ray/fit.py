"""`TorchTrainer` as a run uses it, in a thread: the main one listens to signals and to the board.

Ray Train starts lost workers again by itself. Two kinds of loss it takes for something else, and those are tried again
here: a process that is lost while the workers start ends Ray's run as an error of its controller, and one that was told
to go and has saved counts as a failure.
"""

from __future__ import annotations

import functools
import logging
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
from lerobot_ray.on_ray.wrapped import own_error

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 30
"""How long an elastic run waits for room for as many workers as Ray believes in, before it takes fewer. Ray looks every
20 seconds which nodes there are, so after the loss of one it is wrong for so long."""


class Fit(threading.Thread):
    """`TorchTrainer.fit`, as often as it takes. `error` says how it ended, once it is no longer alive."""

    def __init__(self, setup: RunSetup, workers: Workers, board: Any) -> None:
        super().__init__(daemon=True, name="fit")
        from lerobot_ray.on_ray.worker import train_worker

        config = setup.config.ray
        self._trainer = functools.partial(
            torch_trainer,
            train_worker,
            {"setup": setup, "board": board},
            workers,
            folder=setup.output_dir,
            config=config,
            max_failures=config.max_failures,
        )
        self._starts_left = math.inf if config.max_failures < 0 else config.max_failures
        self.error: BaseException | None = None

    def run(self) -> None:
        while True:
            try:
                self._trainer().fit()
                return
            except BaseException as error:
                if not self._goes_on_after(error):
                    self.error = error
                    return

    def _goes_on_after(self, error: BaseException) -> bool:
        from lerobot_ray.on_ray.leaving import WorkerLeaves

        if isinstance(own_error(error), WorkerLeaves):
            return True
        if not is_lost_at_start(error) or self._starts_left < 1:
            return False
        self._starts_left -= 1
        logger.warning("a training process was lost while the workers started: starting them again")
        return True


def is_lost_at_start(error: BaseException) -> bool:
    """Whether Ray Train gave up because a process went while it started the workers."""
    import torch.distributed
    from ray.exceptions import RayActorError
    from ray.train import ControllerError

    if not isinstance(error, ControllerError):
        return False
    failure = error.controller_failure
    cause = getattr(failure, "cause", failure)  # its peers may be heard first: they cannot reach it
    return isinstance(failure, RayActorError) or isinstance(cause, torch.distributed.DistError)


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
    if workers.fewest < workers.count:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(START_TIMEOUT_S))
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
