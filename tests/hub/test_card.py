"""The page of a policy: front matter the Hub takes, the facts, and a picture that shows the curve."""

import io

import numpy as np
import yaml
from PIL import Image

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.hub.card import TrainedAs, model_card
from lerobot_ray.hub.curve import SIZE, picture_of
from tests.on_ray.runs import TINY_ACT


def test_what_the_page_says(toy_root):
    config = parse_train_config(["--dataset.repo_id=tests/toy", *TINY_ACT, "--policy.tags=[demo]", "--seed=7"])
    trained = TrainedAs(step=12, global_batch=8, world_size=2, losses={"training loss": 0.25}, picture="loss.png")
    metadata = open_metadata("tests/toy", root=toy_root)
    text = model_card(config, repo_id="alice/act", trained=trained, metadata=metadata)
    front = yaml.safe_load(text.split("---")[1])
    assert front["tags"] == ["robotics", "lerobot", "act", "demo"]
    assert (front["license"], front["pipeline_tag"], front["model_name"]) == ("apache-2.0", "robotics", "act")
    assert front["datasets"] == ["tests/toy"]
    for words in ("| steps | 12 |", "8 samples on 2 workers", "| seed | 7 |", "| episodes | 4 |", "![Loss", "0.25"):
        assert words in text
    assert "ACTPolicy.from_pretrained('alice/act')" in text
    assert "loss.png" not in model_card(
        config, repo_id="alice/act", trained=TrainedAs(step=1, global_batch=1, world_size=1), metadata=None
    )


def test_the_curve_is_where_its_values_are():
    steps = np.arange(1, 201)
    picture = Image.open(io.BytesIO(picture_of({"training loss": (steps, 1 / steps)}))).convert("RGB")
    assert picture.size == SIZE
    pixels = np.asarray(picture).astype(int)
    is_blue = (pixels[..., 2] - pixels[..., 0]) > 90
    left, right = (np.flatnonzero(is_blue[:, at]).mean() for at in (80, SIZE[0] - 40))
    assert left < right - 100, "the loss falls, so the line goes down"


def test_no_picture_without_a_curve():
    assert picture_of({}) is None
    assert picture_of({"training loss": (np.array([1, 2]), np.array([np.nan, 1.0]))}) is None
