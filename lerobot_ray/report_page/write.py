"""Puts the sections together and writes `<run>/report.html`: one file that needs no other and no network."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from lerobot_ray import __version__
from lerobot_ray.report_page.curves import learning, own_numbers
from lerobot_ray.report_page.head import header
from lerobot_ray.report_page.markup import text
from lerobot_ray.report_page.results import checkpoints, evaluation
from lerobot_ray.report_page.run_folder import RunFolder, load_run
from lerobot_ray.report_page.samples import samples
from lerobot_ray.report_page.speed import speed
from lerobot_ray.report_page.story import attempts, settings
from lerobot_ray.report_page.words import moment

REPORT_FILE = "report.html"
SECTIONS = (header, learning, evaluation, speed, own_numbers, samples, checkpoints, attempts, settings)


def write_report(run_dir: str | Path, *, to: Path | None = None) -> Path:
    """Write the page of a run, finished or not; its path. DatasetError when the folder holds no metrics."""
    run_dir = Path(run_dir)
    page = report_html(load_run(run_dir))
    path = to or run_dir / REPORT_FILE
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(page, encoding="utf-8")
    os.replace(beside, path)
    return path


def report_html(run: RunFolder) -> str:
    style, script = ((files(__package__) / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    body = "".join(section(run) for section in SECTIONS)
    title = text(run.info.get("name") or run.folder.name)
    foot = f"Written {moment(run.read_s)} by lerobot_ray {text(__version__)} from {text(run.folder)}"
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{title} · training report</title><style>{style}</style></head>"
        f"<body><main>{body}<footer>{foot}</footer></main><script>{script}</script></body></html>"
    )
