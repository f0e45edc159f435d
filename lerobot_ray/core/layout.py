"""Names of files and folders that LeRobot reads and writes. One place, so that a rename is one line."""

from __future__ import annotations

FORMAT_VERSION = "v3.0"

# Dataset
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
EPISODES_DIR = "meta/episodes"
EPISODES_TEMPLATE = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_DIR = "data"
DATA_TEMPLATE = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_TEMPLATE = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

DEFAULT_CHUNKS_SIZE = 1000
DEFAULT_DATA_FILE_MB = 100
DEFAULT_VIDEO_FILE_MB = 200

# Policy folder and checkpoint
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"
TRAIN_CONFIG_NAME = "train_config.json"
OWN_CONFIG_NAME = "lerobot_ray.json"
"""Settings of a run that LeRobot does not know, beside `train_config.json`, whose strict parser would refuse them."""
PREPROCESSOR_NAME = "policy_preprocessor"
POSTPROCESSOR_NAME = "policy_postprocessor"
CHECKPOINTS_DIR = "checkpoints"
LAST_LINK = "last"
PRETRAINED_DIR = "pretrained_model"
PRETRAINED_EMA_DIR = "pretrained_model_ema"
TRAINING_STATE_DIR = "training_state"
TRAINING_STEP_NAME = "training_step.json"
OWN_STATE_NAME = "lerobot_ray_state.json"
"""Where our run stands, in `training_state` beside LeRobot's `training_step.json`."""
SHARDED_DIR = "sharded"
"""Ours: what each rank of a run has saved of the tensors, in checkpoints that are written in parts."""


def next_file(chunk_index: int, file_index: int, *, chunks_size: int) -> tuple[int, int]:
    """The place after (chunk, file): a chunk folder holds `chunks_size` files."""
    return (chunk_index + 1, 0) if file_index == chunks_size - 1 else (chunk_index, file_index + 1)
