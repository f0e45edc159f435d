"""Golden outputs of image transforms, made with LeRobot 0.6.1 and its torchvision.

    python tests/data/make_augment_goldens.py          # with an interpreter that has lerobot

Writes `goldens_augment/pixels.npz` (input frames and each case's output), `cases.json` (what each case is, in this
package's names, and the versions) and `draws.json` (how often LeRobot draws each transform, and quantiles of what it
draws). LeRobot's own types leave uint8 frames as they are, so they are run on float frames and rounded.
"""

from __future__ import annotations

import json
from pathlib import Path

import lerobot
import numpy as np
import torch
import torchvision
from lerobot import transforms as lerobot_transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

HERE = Path(__file__).parent / "goldens_augment"
QUANTILES = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
NUM_DRAWS = 4000


def synthetic_frames() -> torch.Tensor:
    """(2, 3, 24, 40) uint8: ramps, stripes, flat and saturated areas, some noise."""
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(40), indexing="ij")
    noise = torch.from_numpy(np.random.Generator(np.random.PCG64(0)).integers(0, 256, (3, 24, 40)))
    first = torch.stack([rows * 10 + 5, columns * 6 + 10, (rows + columns) * 4])
    first[:, 4:9, 5:14] = torch.tensor([250, 20, 30])[:, None, None]
    first[:, 14:20, 25:36] = noise[:, 14:20, 25:36]
    second = torch.stack([(rows // 3 % 2) * 180 + 30, 200 - columns * 3, torch.full_like(rows, 90)])
    second[:, :6, :6], second[:, -6:, -6:] = 0, 255
    second[:, 8:14, 10:30] = (noise[:, 8:14, 10:30] // 4 + 100) // 2 * 2
    return torch.stack([first, second]).clamp(0, 255).to(torch.uint8)


def torchvision_cases(x: torch.Tensor):
    """(type, kwargs, parameters as this package's `apply` takes them, output)."""
    for factor in (0.0, 0.8, 1.17, 1.9):
        yield "ColorJitter", {}, {"steps": [["brightness", factor]]}, F.adjust_brightness(x, factor)
        yield "ColorJitter", {}, {"steps": [["contrast", factor]]}, F.adjust_contrast(x, factor)
        yield "ColorJitter", {}, {"steps": [["saturation", factor]]}, F.adjust_saturation(x, factor)
    for shift in (-0.5, -0.05, 0.021, 0.33):
        yield "ColorJitter", {}, {"steps": [["hue", shift]]}, F.adjust_hue(x, shift)
    for factor in (0.0, 0.5, 1.5, 3.0):
        yield "SharpnessJitter", {"sharpness": [0.5, 1.5]}, {"factor": factor}, F.adjust_sharpness(x, factor)
    yield "RandomAdjustSharpness", {"sharpness_factor": 2.5}, {}, F.adjust_sharpness(x, 2.5)
    yield "RandomAutocontrast", {}, {}, F.autocontrast(x)
    yield "RandomEqualize", {}, {}, F.equalize(x)
    yield "RandomInvert", {}, {}, F.invert(x)
    for bits in (1, 4, 7):
        yield "RandomPosterize", {"bits": bits}, {}, F.posterize(x, bits)
    yield "RandomSolarize", {"threshold": 100}, {}, F.solarize(x, 100)
    yield "RandomGrayscale", {}, {}, F.rgb_to_grayscale(x, num_output_channels=3)
    yield "RandomChannelPermutation", {}, {"channels": [2, 0, 1]}, F.permute_channels(x, [2, 0, 1])
    for kernel, sigma in ((3, 0.4), ((5, 3), 1.3), (9, 2.0)):
        kwargs = {"kernel_size": kernel}
        size = list(kernel) if isinstance(kernel, tuple) else [kernel, kernel]
        yield "GaussianBlur", kwargs, {"sigma": sigma}, F.gaussian_blur(x, size, [sigma, sigma])
    yield "JPEG", {}, {"quality": 40}, torch.stack([F.jpeg(frame, 40) for frame in x])

    placed = [
        {"angle": 4.7, "translate": (2, -1), "scale": 1.0, "shear": (0.0, 0.0)},
        {"angle": -33.0, "translate": (0, 0), "scale": 0.83, "shear": (9.0, -4.0)},
        {"angle": 0.0, "translate": (-5, 3), "scale": 1.0, "shear": (0.0, 0.0)},
    ]
    looks = [{}, {"interpolation": "bilinear"}, {"fill": 77}, {"interpolation": "bilinear", "fill": 77}]
    looks += [{"center": [3.0, 5.0]}]
    for look in looks:
        for place in placed if not look else placed[1:2]:
            how = {**look, "interpolation": v2.InterpolationMode(look.get("interpolation", "nearest"))}
            how.setdefault("fill", 0)
            arguments = {name: list(v) if isinstance(v, tuple) else v for name, v in place.items()}
            yield "RandomAffine", {"degrees": 5, **look}, place, F.affine(x, **arguments, **how)
    for angle in (12.5, -71.0, 180.0):
        yield "RandomRotation", {"degrees": 180}, {"angle": angle}, F.rotate(x, angle, fill=0)
    yield (
        "RandomRotation",
        {"degrees": 180, "interpolation": "bilinear", "fill": 40},
        {"angle": 21.0},
        F.rotate(x, 21.0, interpolation=v2.InterpolationMode.BILINEAR, fill=40),
    )
    corners = [[0, 0], [39, 0], [39, 23], [0, 23]]
    ends = [[3, 2], [36, 1], [37, 20], [4, 22]]
    for look in ({}, {"interpolation": "nearest", "fill": 200}):
        mode = v2.InterpolationMode(look.get("interpolation", "bilinear"))
        out = F.perspective(x, corners, ends, interpolation=mode, fill=look.get("fill", 0))
        yield "RandomPerspective", look, {"end_points": ends}, out
    yield "RandomHorizontalFlip", {}, {}, F.horizontal_flip(x)
    yield "RandomVerticalFlip", {}, {}, F.vertical_flip(x)
    for part in ({"top": 3, "left": 7, "height": 15, "width": 22}, {"top": 0, "left": 0, "height": 24, "width": 40}):
        for look in ({}, {"interpolation": "nearest"}):
            mode = v2.InterpolationMode(look.get("interpolation", "bilinear"))
            out = F.resized_crop(x, **part, size=[24, 40], interpolation=mode, antialias=True)
            yield "RandomResizedCrop", {"size": [24, 40], **look}, part, out
    for mode in ("constant", "edge", "reflect"):
        padded = F.pad(x, [4, 4, 4, 4], fill=9 if mode == "constant" else 0, padding_mode=mode)
        kwargs = {"size": [24, 40], "padding": 4, "padding_mode": mode, "fill": 9 if mode == "constant" else 0}
        yield "RandomCrop", kwargs, {"top": 1, "left": 7}, F.crop(padded, 1, 7, 24, 40)
    where = {"top": 2, "left": 30, "height": 9, "width": 8}
    erased = F.erase(x, where["top"], where["left"], where["height"], where["width"], torch.tensor(120.0))
    yield "RandomErasing", {"value": 120}, where, erased


def lerobot_cases(x: torch.Tensor):
    """The same for LeRobot's own types, run on float frames; drawn by LeRobot, several times each."""
    unit = x.to(torch.float32) / 255

    def ours(name: str, p: dict) -> dict:
        if name == "GammaCorrection":
            return {"gamma": p["gamma"]}
        if name == "PlanckianJitter":
            return {"temperature": p["temperature"]}
        if name == "JPEGCompression":
            return {"quality": p["quality"]}
        if name == "MotionBlur":
            return {"length": p["kernel_size"], "angle_degrees": p["angle"]}
        if name == "RandomShadow":
            return {"opacity": p["opacity"] * -p["direction"], "start": p["start"], "width": p["width"]}
        if name == "GaussianPatchBrightness":
            rows = zip(p["centers"], p["sigmas"], p["factors"], strict=True)
            return {"patches": [[*center, sigma, factor] for center, sigma, factor in rows]}
        assert name == "CoarseDropout", name
        return {"holes": [[*size, *place] for size, place in zip(p["sizes"], p["positions"], strict=True)]}

    big = {"max_height_frac": 0.4, "max_width_frac": 0.3, "max_holes": 4, "fill_value": 0.3}
    cases = [(name, {}) for name in ("GammaCorrection", "PlanckianJitter", "JPEGCompression", "MotionBlur")]
    cases += [(name, {}) for name in ("RandomShadow", "GaussianPatchBrightness", "CoarseDropout")]
    for name, kwargs in [*cases, ("CoarseDropout", big), ("MotionBlur", {"kernel_size": [11, 11]})]:
        transform = getattr(lerobot_transforms, name)(**kwargs)
        for _ in range(3):
            parameters = transform.make_params([unit])
            out = transform.transform(unit, parameters)
            yield name, kwargs, ours(name, parameters), (out * 255).round().clamp(0, 255).to(torch.uint8)


def quantiles(values) -> list[float]:
    return [round(float(v), 5) for v in np.quantile(np.array(values, dtype=np.float64), QUANTILES)]


def parameter_draws(x: torch.Tensor) -> dict:
    """Quantiles of what LeRobot draws for each type with its default arguments."""
    found = {}

    def sample(name, kwargs, read):
        transform = getattr(lerobot_transforms, name, None) or getattr(v2, name)
        transform = transform(**kwargs)
        rows = [read(transform.make_params([x])) for _ in range(NUM_DRAWS)]
        columns = {key: [row[key] for row in rows if row[key] is not None] for key in rows[0]}
        found[f"{name} {json.dumps(kwargs)}"] = {
            key: {"quantiles": quantiles(v), "share": len(v) / len(rows)} for key, v in columns.items()
        }

    for what, limits in (("brightness", [0.8, 1.2]), ("saturation", [0.5, 1.5]), ("hue", [-0.05, 0.05])):
        sample("ColorJitter", {what: limits}, lambda p, key=f"{what}_factor": {"steps.0.1": p[key]})
    sample("ColorJitter", {"brightness": 0.4}, lambda p: {"steps.0.1": p["brightness_factor"]})
    sample("SharpnessJitter", {"sharpness": [0.5, 1.5]}, lambda p: {"factor": p["sharpness_factor"]})
    sample(
        "RandomAffine",
        {"degrees": [-5.0, 5.0], "translate": [0.05, 0.05]},
        lambda p: {"angle": p["angle"], "translate.0": p["translate"][0], "translate.1": p["translate"][1]},
    )
    sample(
        "RandomAffine",
        {"degrees": 10, "scale": [0.5, 2.0], "shear": 8},
        lambda p: {"angle": p["angle"], "scale": p["scale"], "shear.0": p["shear"][0], "shear.1": p["shear"][1]},
    )
    sample("GaussianNoise", {}, lambda p: {"std": p["std"]})
    sample("GaussianNoise", {"std": 10}, lambda p: {"std": p["std"]})
    sample("MotionBlur", {}, lambda p: {"length": p["kernel_size"], "angle_degrees": p["angle"]})
    sample("JPEGCompression", {}, lambda p: {"quality": p["quality"]})
    sample("GammaCorrection", {}, lambda p: {"gamma": p["gamma"]})
    sample("GammaCorrection", {"gamma": 1.5}, lambda p: {"gamma": p["gamma"]})
    sample("PlanckianJitter", {}, lambda p: {"temperature": p["temperature"]})
    sample(
        "RandomShadow",
        {},
        lambda p: {"opacity": p["opacity"] * -p["direction"], "start": p["start"], "width": p["width"]},
    )
    sample(
        "GaussianPatchBrightness",
        {},
        lambda p: {
            "patches": len(p["factors"]),
            "patches.0.0": p["centers"][0][0],
            "patches.0.2": p["sigmas"][0],
            "patches.0.3": p["factors"][0],
        },
    )
    sample(
        "CoarseDropout",
        {},
        lambda p: {
            "holes": len(p["sizes"]),
            "holes.0.0": p["sizes"][0][0],
            "holes.0.1": p["sizes"][0][1],
            "holes.0.2": p["positions"][0][0],
            "holes.0.3": p["positions"][0][1],
        },
    )
    sample("GaussianBlur", {"kernel_size": 3}, lambda p: {"sigma": p["sigma"][0]})
    sample("RandomRotation", {"degrees": [-20, 40]}, lambda p: {"angle": p["angle"]})
    sample(
        "RandomResizedCrop",
        {"size": [24, 40]},
        lambda p: {name: p[name] for name in ("top", "left", "height", "width")},
    )
    sample(
        "RandomErasing",
        {"p": 1.0},
        lambda p: dict(zip(("top", "left", "height", "width"), (p["i"], p["j"], p["h"], p["w"]), strict=True)),
    )
    sample(
        "RandomPerspective",
        {"p": 1.0},
        lambda p: {f"end_points.{i}.{j}": v for i, j, v in _ends(p["coefficients"])},
    )
    return found


def _ends(coefficients) -> list[tuple[int, int, float]]:
    """Where the corners went, from the coefficients that bring them back."""
    a, b, c, d, e, f, g, h = coefficients
    back = np.array([[a, b, c], [d, e, f], [g, h, 1.0]], dtype=np.float64)
    ends = []
    for i, corner in enumerate([(0, 0), (39, 0), (39, 23), (0, 23)]):
        x, y, w = np.linalg.solve(back, [*corner, 1.0])
        ends += [(i, 0, round(x / w)), (i, 1, round(y / w))]
    return ends


def subset_draws() -> list[dict]:
    """How often each of six transforms is drawn, for several weights; and how often it comes before its neighbour."""
    names = list(lerobot_transforms.ImageTransformsConfig().tfs)
    tables = [([1] * 6, 3, False), ([1] * 6, 1, False), ([1] * 6, 10, False), ([1, 2, 0, 4, 0.5, -1], 2, False)]
    tables += [([5, 1, 1, 1, 1, 1], 3, True)]
    found = []
    for weights, count, random_order in tables:
        config = lerobot_transforms.ImageTransformsConfig(
            enable=True, max_num_transforms=count, random_order=random_order
        )
        for name, weight in zip(names, weights, strict=True):
            config.tfs[name].weight = weight
        transforms = lerobot_transforms.ImageTransforms(config)
        of = {id(transform): name for name, transform in transforms.transforms.items()}
        drawn, first, frame = dict.fromkeys(names, 0), dict.fromkeys(names, 0), torch.zeros(3, 4, 4, dtype=torch.uint8)
        for _ in range(NUM_DRAWS):
            transforms(frame)
            chosen = [of[id(transform)] for transform in transforms.tf.selected_transforms]
            first[chosen[0]] += 1
            for name in chosen:
                drawn[name] += 1
        found.append(
            {
                "weights": dict(zip(names, weights, strict=True)),
                "max_num_transforms": count,
                "random_order": random_order,
                "drawn": {name: number / NUM_DRAWS for name, number in drawn.items()},
                "first": {name: number / NUM_DRAWS for name, number in first.items()},
            }
        )
    return found


def main() -> None:
    torch.manual_seed(1)
    frames = synthetic_frames()
    versions = {"lerobot": lerobot.__version__, "torchvision": torchvision.__version__, "torch": torch.__version__}
    arrays, cases = {"frames": frames.numpy()}, []
    for kind, kwargs, parameters, out in [*torchvision_cases(frames), *lerobot_cases(frames)]:
        name = f"{len(cases):02d}-{kind}"
        assert out.dtype == torch.uint8
        assert out.shape == frames.shape, (name, out.shape)
        arrays[name] = out.numpy()
        cases.append({"name": name, "type": kind, "kwargs": kwargs, "parameters": parameters})
    HERE.mkdir(exist_ok=True)
    np.savez_compressed(HERE / "pixels.npz", **arrays)
    (HERE / "cases.json").write_text(json.dumps({"versions": versions, "cases": cases}, indent=1) + "\n")
    draws = {"parameters": parameter_draws(frames), "subsets": subset_draws()}
    header = {"versions": versions, "draws": NUM_DRAWS, "quantiles": QUANTILES}
    (HERE / "draws.json").write_text(json.dumps({**header, **draws}, indent=1) + "\n")


if __name__ == "__main__":
    main()
