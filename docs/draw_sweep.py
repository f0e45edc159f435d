"""Draws docs/images/sweep.png: the top of a sweep's page, of an invented sweep, as Chromium shows it.

python docs/draw_sweep.py
"""

from __future__ import annotations

import math
import random
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from lerobot_ray.sweeps.best import save_best  # noqa: E402
from lerobot_ray.sweeps.page import write_page  # noqa: E402
from lerobot_ray.sweeps.plan import SweepPlan, settle_sweep  # noqa: E402
from lerobot_ray.sweeps.searchers import RandomSearcher  # noqa: E402
from lerobot_ray.sweeps.stoppers import build_stoppers  # noqa: E402
from lerobot_ray.sweeps.trial import SweepState, best_trial  # noqa: E402

FILE = """\
metric: eval/loss
mode: min
searcher: optuna
scheduler: asha
num_trials: 24
max_concurrent: 4
parameters:
  optimizer.lr: loguniform(1e-5, 1e-2)
  batch_size: [8, 16, 32]
  policy.dropout: uniform(0, 0.3)
  optimizer.type: [adam, adamw]
"""
FLAGS = "--dataset.repo_id=lerobot/pusht --dataset.eval_split=0.1 --eval_steps=500 --policy.type=act --steps=5000"
SLOTS, BROKEN = 4, 17
WIDTH, HEIGHT = 1200, 1560


def main() -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "needs Chromium"
    with TemporaryDirectory() as name:
        folder = Path(name)
        plan, state = invented(folder)
        page, shot = write_page(plan, state), folder / "shot.png"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        rest = [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}"]
        subprocess.run([browser, *flags, *rest, page.as_uri()], check=True, capture_output=True, timeout=120)
        Image.open(shot).convert("RGB").quantize(128).save(DOCS / "images" / "sweep.png", optimize=True)


def invented(folder: Path) -> tuple[SweepPlan, SweepState]:
    """A sweep whose losses are a bowl over the learning rate, with some noise."""
    file = folder / "sweep.yaml"
    file.write_text(FILE)
    plan = settle_sweep(file, FLAGS.split(), folder=folder / "lr-batch-act")
    plan.folder.mkdir()
    state, noise = SweepState(plan.sweep), random.Random(1)
    searcher, stoppers = RandomSearcher(plan.sweep.space, seed=3), build_stoppers(plan.sweep, steps=plan.steps)
    start_s = 1.76e9
    free = [start_s + 12] * SLOTS

    def happened(event: str, time_s: float, **values: Any) -> None:
        state.apply({"event": event, "time": time_s, **values})

    happened("start", start_s, slots=SLOTS, steps=plan.steps)
    for number in range(plan.sweep.num_trials or 0):
        values, slot = searcher.suggest(number) or {}, free.index(min(free))
        began_s = free[slot]
        happened("set", began_s, set=number, values=values, trials=[number], seeds=[None])
        happened("begin", began_s, trial=number, slot=slot)
        reason, step = "", 212 if number == BROKEN else 0
        floor = bowl(values) + 0.02 * noise.random()
        while step < plan.steps and not reason and number != BROKEN:
            step += 500
            value = floor + 1.2 * math.exp(-step / 900) + 0.02 * noise.random()
            happened("report", began_s + step / 40, trial=number, step=step, value=value)
            said = [one.says(number, step=step, value=value) for one in stoppers]
            reason = next((words for words in said if words), "")
        status = "failed" if number == BROKEN else "stopped" if reason else "finished"
        reason = "the loss of step 212 is not finite" if number == BROKEN else reason
        happened("end", began_s + step / 40 + 2, trial=number, status=status, reason=reason, step=step)
        free[slot] = began_s + step / 40 + 2.3
    happened("done", max(free))
    best = best_trial(state)
    assert best is not None
    save_best(plan, best)
    return plan, state


def bowl(values: dict[str, Any]) -> float:
    rate, dropout = math.log10(values["optimizer.lr"]) + 3.6, max(0.0, values["policy.dropout"] - 0.15)
    return 0.12 + 0.09 * rate**2 + 0.3 * dropout + 0.02 * abs(math.log2(values["batch_size"]) - 4)


if __name__ == "__main__":
    main()
