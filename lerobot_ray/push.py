"""`python -m lerobot_ray.push`: bring a run's checkpoints, or its policy, to the Hub after the fact."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lerobot_ray.core.errors import CheckpointError, ConfigError, LerobotRayError

if TYPE_CHECKING:
    from lerobot_ray.config.train import TrainConfig
    from lerobot_ray.data.metadata import DatasetMetadata


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line. 0: everything is there; 2: it could not be done."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lerobot_ray").setLevel(logging.INFO)
    try:
        return _push(_parser().parse_args(argv))
    except LerobotRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (--help lists what there is)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m lerobot_ray.push", description=__doc__)
    parser.add_argument("run", help="the folder of a run")
    parser.add_argument("--repo-id", "--policy.repo_id", help="USER/NAME (the run's own policy.repo_id)")
    parser.add_argument("--what", "--hub.what", choices=("all", "model"), default="all", help="(%(default)s)")
    parser.add_argument("--steps", help="which checkpoints, such as 5000,10000 (all)")
    parser.add_argument(
        "--publish", action="store_true", help="the policy of the newest one, at the root; nothing else"
    )
    parser.add_argument("--private", action="store_true", default=None, help="if the repository is made now")
    return parser


def _push(arguments: argparse.Namespace) -> int:
    from lerobot_ray.checkpoint.commit import complete_checkpoints
    from lerobot_ray.config.files import load_train_config
    from lerobot_ray.core.layout import PRETRAINED_DIR
    from lerobot_ray.hub.client import check_can_push, url_of
    from lerobot_ray.hub.push import push_checkpoint
    from lerobot_ray.hub.pusher import load_record_of_pushes, save_record_of_pushes
    from lerobot_ray.hub.upload import ensure_repo

    run_dir = Path(arguments.run).expanduser().absolute()
    checkpoints = complete_checkpoints(run_dir)
    if not checkpoints:
        raise CheckpointError(f"{run_dir} holds no complete checkpoint. Give the output folder of a run.")
    config = load_train_config(checkpoints[-1] / PRETRAINED_DIR)
    repo_id = arguments.repo_id or (config.policy.repo_id if config.policy else None)
    if not repo_id:
        raise ConfigError("which repository? Give --repo-id=USER/NAME.")
    check_can_push(repo_id, "keep it where it is")
    ensure_repo(repo_id, private=arguments.private)
    if arguments.publish:
        from lerobot_ray.on_ray.publish import publish

        publish(checkpoints[-1], config, run_dir=run_dir, repo_id=repo_id, metadata=_metadata(config))
        return 0
    pushed = load_record_of_pushes(run_dir, repo_id)
    for checkpoint in _chosen(checkpoints, arguments.steps):
        pushed[checkpoint.name] = push_checkpoint(checkpoint, repo_id, what=arguments.what, run_dir=run_dir)
        save_record_of_pushes(run_dir, repo_id, pushed)
        print(f"{checkpoint.name} is on {url_of(repo_id)}, tag {checkpoint.name}")
    return 0


def _chosen(checkpoints: Sequence[Path], steps: str | None) -> list[Path]:
    if steps is None:
        return list(checkpoints)
    by_step = {int(path.name): path for path in checkpoints}
    try:
        wanted = [int(step) for step in steps.split(",")]
    except ValueError:
        raise ConfigError(f"--steps={steps}: expected numbers such as 5000,10000.") from None
    if absent := [step for step in wanted if step not in by_step]:
        there = ", ".join(str(step) for step in by_step)
        raise CheckpointError(f"there is no complete checkpoint of step {absent[0]}; there is one of {there}.")
    return [by_step[step] for step in wanted]


def _metadata(config: TrainConfig) -> DatasetMetadata | None:
    """The dataset's, for the page; a policy can be published where its dataset is not."""
    from lerobot_ray.data.metadata import open_metadata

    dataset = config.dataset
    try:
        return open_metadata(dataset.repo_id, root=dataset.root, revision=dataset.revision)
    except LerobotRayError as error:
        logging.getLogger("lerobot_ray").warning("the page will say little of the dataset: %s", error)
        return None


if __name__ == "__main__":
    sys.exit(main())
