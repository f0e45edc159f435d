"""Draws docs/images/report.png: the top of a report page, of an invented run, as Chromium shows it.

python docs/draw_report.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from lerobot_ray.report_page import write_report  # noqa: E402
from tests.report_runs import RunShape, make_run  # noqa: E402

SHAPE = RunShape(
    steps=20_000,
    log_freq=20,
    save_freq=2000,
    global_batch=16,
    episodes=50,
    episode_samples=320,
    cuts=((7300, 6000, 0.1),),
    waits=0.012,
    has_eval=False,
)
WIDTH, HEIGHT = 1200, 1750


def main() -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "needs Chromium"
    with TemporaryDirectory() as folder:
        page = write_report(make_run(Path(folder) / "run", SHAPE))
        shot = Path(folder) / "shot.png"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        rest = [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}"]
        subprocess.run([browser, *flags, *rest, page.as_uri()], check=True, capture_output=True, timeout=120)
        Image.open(shot).convert("RGB").quantize(128).save(DOCS / "images" / "report.png", optimize=True)


if __name__ == "__main__":
    main()
