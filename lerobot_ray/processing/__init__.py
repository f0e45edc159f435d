"""What happens to a batch before the policy sees it, and to an action before the robot does: LeRobot's pipelines.

Reading order: `transition` (what steps work on), `step` (what a step is), the steps (`rename`, `batch`, `device`,
`normalize`, `tokenize`, `prompt`, `relative`), `pipeline` and `load` (the files), `defaults` (which steps each policy
has), `run` (which statistics a training run uses).
"""

from lerobot_ray.processing.defaults import make_default_processors
from lerobot_ray.processing.load import load_pipeline
from lerobot_ray.processing.pipeline import Pipeline
from lerobot_ray.processing.run import load_processors, processors_for_run
from lerobot_ray.processing.statistics import check_statistics, with_imagenet_stats
from lerobot_ray.processing.step import Step, register_step

__all__ = [
    "Pipeline",
    "Step",
    "check_statistics",
    "load_pipeline",
    "load_processors",
    "make_default_processors",
    "processors_for_run",
    "register_step",
    "with_imagenet_stats",
]
