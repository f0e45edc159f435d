"""The finished policy at the root of its repository, with the page that says how it was trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lerobot_ray.checkpoint.state import load_record
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import DatasetError
from lerobot_ray.core.layout import PRETRAINED_DIR, PRETRAINED_EMA_DIR
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.hub.card import TrainedAs, model_card
from lerobot_ray.hub.client import url_of
from lerobot_ray.hub.curve import picture_of
from lerobot_ray.hub.push import CARD_NAME, push_policy
from lerobot_ray.hub.upload import Files, ensure_repo
from lerobot_ray.tracking.metric_log import Series, load_metrics

logger = logging.getLogger(__name__)

PICTURE_NAME = "loss.png"
CURVES = {"train/loss": "training loss", "eval/loss": "held-out loss"}


def publish(
    checkpoint: Path, config: TrainConfig, *, run_dir: Path, repo_id: str, metadata: DatasetMetadata | None
) -> str:
    """Push the policy of a checkpoint; its address. With an average (EMA), that goes to `<repo_id>-ema` as well."""
    push_policy(
        checkpoint / PRETRAINED_DIR, repo_id, beside=beside(checkpoint, config, run_dir, repo_id, metadata, False)
    )
    url = url_of(repo_id)
    if (checkpoint / PRETRAINED_EMA_DIR).is_dir():
        _publish_average(checkpoint, config, run_dir, f"{repo_id}-ema", metadata)
    logger.info("Model pushed to %s", url)
    return url


def _publish_average(
    checkpoint: Path, config: TrainConfig, run_dir: Path, repo_id: str, metadata: DatasetMetadata | None
) -> None:
    policy: Any = config.policy
    try:
        ensure_repo(repo_id, private=policy.private)
        push_policy(
            checkpoint / PRETRAINED_EMA_DIR,
            repo_id,
            beside=beside(checkpoint, config, run_dir, repo_id, metadata, True),
        )
        logger.info("averaged weights pushed to %s", url_of(repo_id))
    except Exception as error:  # as in LeRobot: the trained weights are there, and they are the policy
        logger.warning("the averaged weights are not on the Hub: %s", error)


def beside(
    checkpoint: Path,
    config: TrainConfig,
    run_dir: Path,
    repo_id: str,
    metadata: DatasetMetadata | None,
    is_average: bool,
) -> Files:
    """The files that go with a policy: its page and the picture on it."""
    curves = _curves(run_dir)
    picture = picture_of({name: (series.step, series.value) for name, series in curves.items()})
    record = load_record(checkpoint)
    trained = TrainedAs(
        step=record.step,
        global_batch=record.global_batch,
        world_size=record.world_size,
        losses={name: float(series.value[-1]) for name, series in curves.items()},
        picture=PICTURE_NAME if picture else "",
        is_average=is_average,
    )
    card = model_card(config, repo_id=repo_id, trained=trained, metadata=metadata)
    return {CARD_NAME: card.encode(), **({PICTURE_NAME: picture} if picture else {})}


def _curves(run_dir: Path) -> dict[str, Series]:
    try:
        series = load_metrics(run_dir).series
    except DatasetError:
        return {}
    finite = {name: series[key].finite for key, name in CURVES.items() if key in series}
    return {name: curve for name, curve in finite.items() if len(curve.step)}
