"""Draw docs/images/image-transforms.png: each image transform on one synthetic picture.

python docs/draw_image_transforms.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from lerobot_ray.data.augment import ImageTransforms, build_transform

OUT = Path(__file__).parent / "images" / "image-transforms.png"
WIDTH, HEIGHT, GAP, CAPTION, COLUMNS = 144, 108, 8, 18, 8

LEROBOT_TABLE = [
    ("brightness", "ColorJitter", {}, {"steps": [("brightness", 1.2)]}),
    ("contrast", "ColorJitter", {}, {"steps": [("contrast", 0.8)]}),
    ("saturation", "ColorJitter", {}, {"steps": [("saturation", 1.5)]}),
    ("hue", "ColorJitter", {}, {"steps": [("hue", 0.05)]}),
    ("sharpness", "SharpnessJitter", {"sharpness": 0.5}, {"factor": 1.5}),
    (
        "affine",
        "RandomAffine",
        {"degrees": 5},
        {"angle": 5.0, "translate": (7, 5), "scale": 1.0, "shear": (0.0, 0.0)},
    ),
]
LEROBOT_OTHERS = [
    ("GaussianNoise", {}, {"std": 20.0, "key": 3}),
    ("MotionBlur", {}, {"length": 9, "angle_degrees": 20.0}),
    ("JPEGCompression", {}, {"quality": 15}),
    ("GammaCorrection", {}, {"gamma": 1.7}),
    ("PlanckianJitter", {}, {"temperature": 4000}),
    ("RandomShadow", {}, {"opacity": 0.5, "start": 0.6, "width": 0.4}),
    ("GaussianPatchBrightness", {}, {"patches": [(0.3, 0.3, 0.2, 1.6), (0.8, 0.7, 0.15, 0.4)]}),
    (
        "CoarseDropout",
        {},
        {"holes": [(0.07, 0.07, 0.2, 0.2), (0.06, 0.05, 0.6, 0.5), (0.05, 0.07, 0.4, 0.85), (0.07, 0.06, 0.9, 0.3)]},
    ),
]
TORCHVISION = [
    ("GaussianBlur", {"kernel_size": 9}, {"sigma": 2.0}),
    ("RandomErasing", {"value": "random"}, {"top": 55, "left": 20, "height": 40, "width": 36, "key": 4}),
    ("RandomPerspective", {}, {"end_points": [(14, 9), (136, 3), (125, 100), (5, 104)]}),
    ("RandomResizedCrop", {"size": [HEIGHT, WIDTH]}, {"top": 22, "left": 30, "height": 75, "width": 100}),
    ("RandomCrop", {"size": [HEIGHT, WIDTH], "padding": 12, "padding_mode": "edge"}, {"top": 2, "left": 22}),
    ("RandomRotation", {"degrees": 20}, {"angle": 14.0}),
    ("RandomHorizontalFlip", {}, {}),
    ("RandomGrayscale", {}, {}),
    ("RandomEqualize", {}, {}),
    ("RandomAutocontrast", {}, {}),
    ("RandomPosterize", {"bits": 2}, {}),
    ("RandomSolarize", {"threshold": 128}, {}),
    ("RandomInvert", {}, {}),
    ("RandomChannelPermutation", {}, {"channels": [2, 0, 1]}),
]


def scene() -> torch.Tensor:
    """A gripper over a table with blocks: (1, 3, H, W) uint8."""
    scale = 4
    rows = np.linspace(0.0, 1.0, HEIGHT * scale)[:, None, None]
    ground = np.broadcast_to(np.array([196.0, 186, 170]) * (0.75 + 0.3 * rows), (HEIGHT * scale, WIDTH * scale, 3))
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)

    def box(x, y, w, h, colour):
        draw.rectangle([x * scale, y * scale, (x + w) * scale, (y + h) * scale], fill=colour)

    def corners(*points):
        return [(x * scale, y * scale) for x, y in points]

    box(0, 0, WIDTH, 30, (92, 104, 118))
    for column in range(0, WIDTH, 12):
        box(column, 0, 1, 30, (78, 89, 102))
    for x, y, size, colour, side in (
        (18, 62, 26, (196, 62, 48), (140, 42, 34)),
        (58, 76, 22, (58, 118, 72), (40, 84, 52)),
        (98, 58, 30, (222, 172, 52), (168, 126, 34)),
    ):
        draw.polygon(
            corners((x, y), (x + 5, y - 6), (x + size + 5, y - 6), (x + size, y)),
            fill=tuple(min(255, int(c * 1.2)) for c in colour),
        )
        box(x, y, size, size, colour)
        draw.polygon(
            corners((x + size, y), (x + size + 5, y - 6), (x + size + 5, y + size - 6), (x + size, y + size)),
            fill=side,
        )
    box(66, 0, 10, 34, (48, 54, 64))
    box(54, 32, 34, 6, (60, 68, 80))
    box(55, 38, 5, 18, (210, 214, 220))
    box(82, 38, 5, 18, (210, 214, 220))
    small = np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
    return torch.from_numpy(small.copy()).permute(2, 0, 1)[None]


def tiles() -> list[list[tuple[str, torch.Tensor]]]:
    """Groups of (caption, frame)."""
    frame = scene()

    def applied(kind, kwargs, parameters):
        return build_transform(kind, {"type": kind, "kwargs": kwargs}).apply(frame, **parameters)

    table = [(name, applied(kind, kwargs, parameters)) for name, kind, kwargs, parameters in LEROBOT_TABLE]
    others = [(kind, applied(kind, kwargs, parameters)) for kind, kwargs, parameters in LEROBOT_OTHERS]
    vision = [(kind, applied(kind, kwargs, parameters)) for kind, kwargs, parameters in TORCHVISION]
    entries = {name: {"type": kind, "kwargs": kwargs} for name, kind, kwargs, _ in LEROBOT_TABLE}
    ranges = {"brightness": [0.8, 1.2], "contrast": [0.8, 1.2], "saturation": [0.5, 1.5], "hue": [-0.05, 0.05]}
    for name, limits in ranges.items():
        entries[name]["kwargs"] = {name: limits}
    entries["affine"]["kwargs"] = {"degrees": [-5, 5], "translate": [0.05, 0.05]}
    transforms = ImageTransforms({"enable": True, "tfs": entries}, seed=1000)
    drawn = [(f"default, q = {q}", transforms(frame, q, "observation.images.front")) for q in range(COLUMNS)]
    return [[("the frame", frame), *table], others, vision, drawn]


def main() -> None:
    rows = [group[i : i + COLUMNS] for group in tiles() for i in range(0, len(group), COLUMNS)]
    size = (COLUMNS * (WIDTH + GAP) + GAP, len(rows) * (HEIGHT + CAPTION + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for row, group in enumerate(rows):
        for column, (caption, frame) in enumerate(group):
            x, y = GAP + column * (WIDTH + GAP), GAP + row * (HEIGHT + CAPTION + GAP)
            sheet.paste(Image.fromarray(frame[0].permute(1, 2, 0).contiguous().numpy()), (x, y))
            draw.text((x, y + HEIGHT + 2), caption, fill=(40, 40, 40), font=font)
    OUT.parent.mkdir(exist_ok=True)
    sheet.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
