"""Image transforms: the pixels of torchvision, the draws of LeRobot, and a pure function of the place in the stream."""

import dataclasses
import doctest
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lerobot_ray.config.dataset import ImageTransformConfig, ImageTransformsConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data.augment import TYPES, ImageTransforms, build_transform
from lerobot_ray.data.draws import Draws, _mixed, normal_pixels, uniform_pixels

HERE = Path(__file__).parent
CASES = json.loads((HERE / "goldens_augment/cases.json").read_text())["cases"]
DRAWS = json.loads((HERE / "goldens_augment/draws.json").read_text())
CAMERA = "observation.images.front"


@pytest.fixture(scope="module")
def golden():
    with np.load(HERE / "goldens_augment/pixels.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture
def frames(golden):
    return golden["frames"].clone()


def build(kind, **kwargs):
    return build_transform("t", {"type": kind, "kwargs": kwargs})


def enabled(tfs, **more):
    return {"enable": True, "tfs": tfs, **more}


# Pixels


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_pixels_are_those_of_torchvision_and_lerobot(golden, case):
    frames = golden["frames"].clone()
    out = build(case["type"], **case["kwargs"]).apply(frames, **case["parameters"])
    assert out.dtype == torch.uint8
    assert torch.equal(frames, golden["frames"]), "the input was written to"
    difference = (out.int() - golden[case["name"]].int()).abs()
    if case["kwargs"].get("interpolation", "") == "nearest" or case["type"] in ("RandomAffine", "RandomRotation"):
        # Between two pixels at equal distance, the last bit of a float decides: at most one pixel in a thousand.
        assert (difference > 1).float().mean() < 0.001
    else:
        assert difference.max() <= 1


def test_the_goldens_tell_transforms_apart(golden):
    """A case whose output is the input would pass with a transform that does nothing."""
    same = [case["name"] for case in CASES if torch.equal(golden[case["name"]], golden["frames"])]
    assert [name.split("-")[1] for name in same] == ["RandomResizedCrop", "RandomResizedCrop"]  # of the whole frame
    assert {case["type"] for case in CASES} >= set(TYPES) - {
        *("Identity", "Grayscale", "RandomPhotometricDistort", "GaussianNoise")
    }


def test_noise_has_the_strength_lerobot_gives_it():
    grey = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    noise = build("GaussianNoise").apply(grey, std=20.0, key=5).float() - 128
    assert abs(noise.mean()) < 0.3
    assert abs(noise.std() - 20.0) < 0.3
    kurtosis = (noise**4).mean() / noise.var() ** 2
    assert abs(kurtosis - 3) < 0.1
    planes = noise.flatten(2).flatten(0, 1)
    between = torch.corrcoef(planes) - torch.eye(len(planes))
    assert between.abs().max() < 0.08, "channels and frames share noise"
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    assert build("GaussianNoise").apply(white, std=20.0, key=5).min() > 150, "wrapped around"


def test_types_lerobot_leaves_uint8_alone_with_do_something_here(frames):
    for kind in ("GaussianNoise", "MotionBlur", "JPEGCompression", "GaussianPatchBrightness", "RandomShadow"):
        assert not torch.equal(ImageTransforms(enabled({"t": {"type": kind}}))(frames, 0, CAMERA), frames), kind
    for kind in ("CoarseDropout", "GammaCorrection", "PlanckianJitter"):
        assert not torch.equal(ImageTransforms(enabled({"t": {"type": kind}}))(frames, 0, CAMERA), frames), kind


@pytest.mark.parametrize("kind", sorted(TYPES))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_type_keeps_shape_and_dtype(frames, kind, channels):
    needed = {
        "SharpnessJitter": {"sharpness": 0.5},
        "RandomAffine": {"degrees": 10, "translate": [0.1, 0.1], "scale": [0.8, 1.2], "shear": [-5, 5]},
        "RandomRotation": {"degrees": 10},
        "RandomAdjustSharpness": {"sharpness_factor": 2},
        "RandomPosterize": {"bits": 3},
        "RandomSolarize": {"threshold": 128},
        "GaussianBlur": {"kernel_size": [3, 5]},
        "RandomResizedCrop": {"size": [24, 40]},
        "RandomCrop": {"size": [24, 40], "padding": [3, 2]},
        "ColorJitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
    }
    transforms = ImageTransforms(enabled({"t": {"type": kind, "kwargs": needed.get(kind, {})}}))
    frames = frames[:, :channels]
    changed = 0
    for q in range(8):
        out = transforms(frames, q, CAMERA)
        assert (out.shape, out.dtype) == (frames.shape, torch.uint8)
        changed += not torch.equal(out, frames)
    grey_only = {"RandomGrayscale", "Grayscale", "RandomChannelPermutation", "PlanckianJitter"}
    assert changed or kind in {"Identity", "RandomGrayscale"} or (channels == 1 and kind in grey_only)


# Draws


def reach(parameters, path):
    """The value at "patches.0.1", a length if the path ends at a list, None if the transform drew less."""
    for step in path.split("."):
        parameters = parameters[int(step)] if step.isdigit() else parameters[step]
    return len(parameters) if isinstance(parameters, list) else parameters


@pytest.mark.parametrize("name", sorted(DRAWS["parameters"]))
def test_strengths_are_distributed_as_lerobot_draws_them(name):
    kind, kwargs = name.split(" ", 1)
    transform = build(kind, **json.loads(kwargs))
    drawn = [transform.draw(Draws(1, q, CAMERA), 3, 24, 40) for q in range(DRAWS["draws"])]
    for path, expected in DRAWS["parameters"][name].items():
        ours = np.array([reach(parameters, path) for parameters in drawn if parameters is not None], dtype=np.float64)
        theirs = np.array(expected["quantiles"])
        spread = max(theirs[-1] - theirs[0], 1e-9)
        found = np.quantile(ours, DRAWS["quantiles"])
        # Two samples of 4000: their quantiles differ by about 0.01 of the spread, whole numbers by one more.
        step = 1.0 if np.all(ours == np.round(ours)) else 0.0
        assert np.all(np.abs(found - theirs) <= 0.05 * spread + step), (path, found, theirs)
        if step == 1.0:
            assert abs(ours.mean() - np.interp(0.5, DRAWS["quantiles"], theirs)) < 0.2 * spread + 0.5


@pytest.mark.parametrize("subset", DRAWS["subsets"], ids=lambda subset: f"max{subset['max_num_transforms']}")
def test_transforms_are_drawn_as_often_as_lerobot_draws_them(subset):
    config = ImageTransformsConfig(
        enable=True, max_num_transforms=subset["max_num_transforms"], random_order=subset["random_order"]
    )
    tfs = {name: dataclasses.replace(config.tfs[name], weight=weight) for name, weight in subset["weights"].items()}
    transforms = ImageTransforms(dataclasses.replace(config, tfs=tfs), seed=5)
    num_draws = DRAWS["draws"]
    drawn, first = dict.fromkeys(tfs, 0), dict.fromkeys(tfs, 0)
    for q in range(num_draws):
        names = [name for name, _, _ in transforms.draw(q, CAMERA, (3, 24, 40))]
        first[names[0]] += 1
        for name in names:
            drawn[name] += 1
        assert len(set(names)) == len(names)
        assert subset["random_order"] or names == sorted(names, key=list(tfs).index)
    for found, expected in ((drawn, subset["drawn"]), (first, subset["first"])):
        for name, number in found.items():
            assert abs(number / num_draws - expected[name]) < 0.04, name


def test_defaults_are_lerobots_table():
    transforms = ImageTransforms(ImageTransformsConfig(enable=True))
    assert transforms.names == ["brightness", "contrast", "saturation", "hue", "sharpness", "affine"]
    assert [len(transforms.draw(q, CAMERA, (3, 24, 40))) for q in range(5)] == [3] * 5


# A pure function of seed, stream index and camera


def test_the_draw_depends_on_seed_place_and_camera_alone(frames):
    config = ImageTransformsConfig(enable=True)
    first, again = ImageTransforms(config, seed=1), ImageTransforms(config, seed=1)
    torch.manual_seed(1)
    forward = [first(frames, q, CAMERA) for q in range(12)]
    torch.manual_seed(2)
    backward = [again(frames, q, CAMERA) for q in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    travelled = pickle.loads(pickle.dumps(first))
    assert torch.equal(travelled(frames, 3, CAMERA), forward[3])
    for other in (
        first(frames, 4, CAMERA),
        first(frames, 3, "observation.images.wrist"),
        ImageTransforms(config, seed=2)(frames, 3, CAMERA),
    ):
        assert not torch.equal(other, forward[3])
    assert not torch.equal(first(frames, 2**40 + 3, CAMERA), forward[3])


def test_all_frames_of_a_window_share_a_draw(frames):
    table = {kind: {"type": kind} for kind in ("RandomShadow", "GammaCorrection", "CoarseDropout", "MotionBlur")}
    table["affine"] = {"type": "RandomAffine", "kwargs": {"degrees": 20}}
    transforms = ImageTransforms(enabled(table, max_num_transforms=5))
    same = frames[:1].expand(4, -1, -1, -1)
    for q in range(5):
        out = transforms(same, q, CAMERA)
        assert all(torch.equal(out[0], frame) for frame in out[1:])


def test_draws_are_frozen():
    """If this fails, every run with image transforms sees other pixels after a resume: change the order's version."""
    draws = Draws(1000, 123456789, CAMERA)
    assert [draws.integer(0, 10**6) for _ in range(4)] == [674686, 85350, 325948, 497430]
    assert [round(draws.uniform(), 6) for _ in range(2)] == [0.167854, 0.081045]
    assert draws.subset([1, 2, 3, 4], 4) == [3, 0, 1, 2]
    assert uniform_pixels(7, (6,), torch.device("cpu")).tolist() == [20, 215, 28, 2, 203, 218]
    normal = normal_pixels(7, (3,), torch.device("cpu"))
    assert torch.allclose(normal, torch.tensor([-2.2715, -0.7957, 0.2749]), atol=1e-3)


def test_the_counter_generator_is_splitmix64():
    """The published test vector: the first outputs for seed 1234567."""
    words = _mixed(torch.arange(1, 4), 1234567).tolist()
    assert [word % 2**64 for word in words] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_numbers_are_even():
    draws = Draws(0, 0, "x")
    counts = np.bincount([draws.integer(3, 7) for _ in range(10_000)], minlength=8)
    assert counts[:3].sum() == 0
    assert counts[3:].min() > 1850
    values = uniform_pixels(3, (100_000,), torch.device("cpu"))
    assert torch.bincount(values.long(), minlength=256).min() > 300
    normal = normal_pixels(3, (200_001,), torch.device("cpu"))
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert not torch.equal(normal, normal_pixels(4, (200_001,), torch.device("cpu")))


def test_other_processes_draw_the_same():
    code = "from lerobot_ray.data.draws import Draws; print(Draws(3, 9, 'cam').word())"
    output = subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": "1"}, text=True)
    assert output == f"{Draws(3, 9, 'cam').word()}\n"


@pytest.mark.gpu
def test_devices_agree(golden):
    if not torch.cuda.is_available():
        pytest.skip("no accelerator")
    frames = golden["frames"]
    for case in CASES:
        transform = build(case["type"], **case["kwargs"])
        here = transform.apply(frames.clone(), **case["parameters"])
        there = transform.apply(frames.cuda(), **case["parameters"]).cpu()
        assert ((here.int() - there.int()).abs() > 1).float().mean() < 0.001, case["name"]
    noise = build("GaussianNoise")
    here, there = noise.apply(frames, std=20.0, key=5), noise.apply(frames.cuda(), std=20.0, key=5).cpu()
    assert (here.int() - there.int()).abs().max() <= 1


# Configuration


def test_off_means_off(frames):
    for config in (
        ImageTransformsConfig(),
        ImageTransformsConfig(enable=True, max_num_transforms=0),
        enabled({}),
        enabled({"t": {"weight": 0, "type": "RandomInvert"}, "u": {"weight": -1, "type": "RandomInvert"}}),
    ):
        assert torch.equal(ImageTransforms(config)(frames, 0, CAMERA), frames)


def test_a_mapping_a_dataclass_and_defaults_mean_the_same(frames):
    as_dataclass = ImageTransformsConfig(enable=True, tfs={"b": ImageTransformConfig(1.0, "GammaCorrection", {})})
    as_mapping = enabled({"b": {"type": "GammaCorrection"}})
    assert torch.equal(ImageTransforms(as_dataclass)(frames, 1, "c"), ImageTransforms(as_mapping)(frames, 1, "c"))
    assert torch.equal(ImageTransforms(enabled({"i": {}}))(frames, 1, "c"), frames)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"type": "ColourJitter"}, "no image transform 'ColourJitter'.*Did you mean ColorJitter"),
        ({"type": "ColorJitter", "kwargs": {"brightnes": 1}}, "no argument 'brightnes'.*Did you mean 'brightness'"),
        ({"type": "ColorJitter", "kwargs": {"hue": [-0.6, 0.1]}}, r"hue=\[-0.6, 0.1\].*from -0.5 up to 0.5"),
        ({"type": "ColorJitter", "kwargs": {"contrast": [1.2, 0.8]}}, r"contrast=\[1.2, 0.8\]"),
        ({"type": "ColorJitter", "kwargs": {"contrast": "much"}}, "contrast=much"),
        ({"type": "SharpnessJitter"}, "missing 1 required keyword-only argument: 'sharpness'"),
        ({"type": "RandomInvert", "kwargs": {"p": 2}}, "p=2 is not a probability"),
        ({"type": "RandomAffine", "kwargs": {"degrees": 3, "translate": [2, 0]}}, "from 0 to 1"),
        ({"type": "RandomAffine", "kwargs": {"degrees": 3, "interpolation": "cubic"}}, "neither nearest nor bilinear"),
        ({"type": "MotionBlur", "kwargs": {"kernel_size": 4}}, "no odd kernel_size"),
        ({"type": "GammaCorrection", "kwargs": {"gamma": 0}}, "above 0"),
        ({"type": "PlanckianJitter", "kwargs": {"temperature": 2000}}, "from 3000 up to 15000"),
        ({"type": "RandomRotation", "kwargs": {"degrees": 3, "expand": True}}, "expand"),
        ({"type": "GaussianBlur", "kwargs": {"kernel_size": 4}}, "must be odd"),
        ({"type": "Grayscale", "kwargs": {"num_output_channels": 1}}, "must be 3"),
        ({"type": "RandomCrop", "kwargs": {"size": [1, 2, 3]}}, "size"),
        ({"type": "CoarseDropout", "kwargs": {"max_holes": 0}}, "at least 1"),
    ],
)
def test_mistakes_are_named(entry, words):
    with pytest.raises(ConfigError, match=rf"(?s)dataset.image_transforms.tfs.mine.*{words}"):
        ImageTransforms(enabled({"mine": entry}))


def test_a_transform_that_changes_the_size_is_refused(frames):
    transforms = ImageTransforms(enabled({"crop": {"type": "RandomResizedCrop", "kwargs": {"size": 20}}}))
    with pytest.raises(ConfigError, match=r"tfs.crop: RandomResizedCrop turns 3x24x40 frames of cam into 3x20x20"):
        transforms(frames, 0, "cam")


def test_frames_it_cannot_take_are_named(frames):
    transforms = ImageTransforms(ImageTransformsConfig(enable=True))
    with pytest.raises(ConfigError, match="cam: image transforms take uint8 frames with 1 or 3 channels"):
        transforms(frames.float(), 0, "cam")
    with pytest.raises(ConfigError, match="with 4"):
        transforms(torch.zeros(1, 4, 8, 8, dtype=torch.uint8), 0, "cam")


def test_without_torchvision_its_other_classes_say_what_they_need():
    code = """
import sys
sys.modules["torchvision"] = None
from lerobot_ray.data.augment import ImageTransforms
ImageTransforms({"enable": True, "tfs": {"a": {"type": "AugMix"}}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ConfigError: dataset.image_transforms.tfs.a: there is no image transform 'AugMix'" in done.stderr
    assert "need torchvision installed" in done.stderr


def test_the_page_shows_what_happens():
    page = HERE.parents[1] / "docs/image-transforms.md"
    failed, tried = doctest.testfile(str(page), module_relative=False, verbose=False)
    assert (failed, tried) == (0, 8)
    text = page.read_text()
    assert not [kind for kind in TYPES if f"`{kind}`" not in text and f"| {kind} |" not in text]


@pytest.mark.lerobot
def test_any_other_torchvision_class_where_it_is_installed():
    if not (python := os.environ.get("PEER_PYTHON")):
        pytest.skip("PEER_PYTHON is not set")
    code = """
import pickle, torch
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.data.augment import ImageTransforms
frames = torch.arange(2 * 3 * 24 * 40).reshape(2, 3, 24, 40).to(torch.uint8)
def table(**entry): return {"enable": True, "tfs": {"a": entry}}
elastic = ImageTransforms(table(type="ElasticTransform", kwargs={"alpha": 80.0}))
state = torch.get_rng_state()
first = elastic(frames, 1, "cam")
assert torch.equal(state, torch.get_rng_state())
torch.manual_seed(99)
assert torch.equal(first, elastic(frames, 1, "cam"))
assert torch.equal(first, pickle.loads(pickle.dumps(elastic))(frames, 1, "cam"))
assert not torch.equal(first, elastic(frames, 2, "cam")) and not torch.equal(first, frames)
for entry, words in (
    ({"type": "AugMixx"}, "Did you mean AugMix"),
    ({"type": "ElasticTransform", "kwargs": {"alpah": 1}}, "torchvision's ElasticTransform"),
    ({"type": "InterpolationMode"}, "neither here nor in torchvision"),
):
    try: ImageTransforms(table(**entry))
    except ConfigError as error: assert words in str(error), error
    else: raise AssertionError(entry)
try: ImageTransforms(table(type="CenterCrop", kwargs={"size": 8}))(frames, 0, "cam")
except ConfigError as error: assert "3x24x40 frames of cam into 3x8x8" in str(error)
else: raise AssertionError
print("fine")
"""
    root = str(HERE.parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment, cwd=root)
    assert done.stdout == "fine\n", done.stderr
