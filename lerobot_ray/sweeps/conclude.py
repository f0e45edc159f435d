"""How a sweep ended: the table, the page, the best settings, what to type next, the exit code."""

from __future__ import annotations

import logging
import shutil

from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.on_ray.ending import say
from lerobot_ray.on_ray.run_folder import RAY_DIR
from lerobot_ray.sweeps.best import BEST_FILE, best_policy, commands, save_best
from lerobot_ray.sweeps.plan import SweepPlan
from lerobot_ray.sweeps.queue import TrialQueue
from lerobot_ray.sweeps.table import trials_table
from lerobot_ray.sweeps.trial import Trial, best_trial

logger = logging.getLogger(__name__)

TABLE_FILE = "trials.txt"


def conclude(queue: TrialQueue, received: int) -> int:
    """Say it and write it down. `received`: the signal that ended it, or 0."""
    plan, state = queue.plan, queue.state
    best = best_trial(state)
    table = trials_table(state)
    (plan.folder / TABLE_FILE).write_text(table + "\n", encoding="utf-8")
    say(f"\n{table}\n")
    if best is not None:
        save_best(plan, best)
    try:
        from lerobot_ray.sweeps.page import write_page

        say(f"page: {write_page(plan, state)}")
    except Exception as error:  # a page is not worth a sweep
        logger.warning("no page: %s: %s", type(error).__name__, error)
    shutil.rmtree(plan.folder / RAY_DIR, ignore_errors=True)
    if received:
        say("stopped. Go on with --resume and the same flags.")
        return 128 + received
    if best is None:
        say("no trial brought a value; the table says why.")
        return 1
    say(f"best: trial {best.name}, settings in {plan.folder / BEST_FILE}")
    for what, command in commands(plan, best).items():
        say(f"{what}:\n  {command}")
    if plan.push_best:
        return push(plan, best)
    return 0


def push(plan: SweepPlan, best: Trial) -> int:
    """Publish the best policy; 1 when there is none or the Hub refuses, for the sweep itself is done."""
    folder = best_policy(plan, best)
    if folder is None:
        say("error: the best trial has no checkpoint to push. Leave save_checkpoint on.")
        return 1
    from lerobot_ray.sweeps.push_best import push_best

    try:
        say(f"pushed: {push_best(plan, folder)}")
    except LerobotRayError as error:
        say(f"error: {error}")
        return 1
    return 0
