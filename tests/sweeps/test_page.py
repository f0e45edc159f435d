"""The page of a sweep: whole, by itself, and nothing of a run's text taken for markup."""

from __future__ import annotations

import json
import re

import numpy as np
import yaml

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.sweeps.best import commands, save_best
from lerobot_ray.sweeps.importance import importance
from lerobot_ray.sweeps.page import page_html, write_page
from lerobot_ray.sweeps.queue import TrialQueue
from lerobot_ray.sweeps.trial import best_trial
from tests.sweeps.sweeps import plan_of


def swept(tmp_path, count: int = 8, **changes) -> TrialQueue:
    parameters = {"optimizer.lr": "loguniform(1e-5, 1e-1)", "batch_size": [4, 8], "optimizer.type": ["adam", "adamw"]}
    plan = plan_of(tmp_path, num_trials=count, parameters=parameters, **changes)
    queue = TrialQueue(plan, [])
    queue.record("start", sweep=plan.fingerprint(), slots=2, steps=100, words=[])
    for number in range(count):
        trial = queue.next_trial()
        queue.record("begin", trial=number, slot=number % 2)
        if number == 1:
            queue.record("end", trial=1, status="failed", reason="<b>no</b> & never", step=2)
            continue
        for step in (50, 100):
            loss = (np.log10(trial.values["optimizer.lr"]) + 3) ** 2 + 100 / step
            queue.record("report", trial=number, step=step, value=float(loss))
        queue.record("end", trial=number, status="finished", reason="", step=100)
    queue.record("done")
    return queue


def test_the_page_is_whole_and_by_itself(tmp_path):
    queue = swept(tmp_path)
    save_best(queue.plan, best_trial(queue.state))
    page = write_page(queue.plan, queue.state).read_text()
    for anchor in ("parallel", "against", "curves", "importance", "trials", "slots", "settings"):
        assert f"<section id='{anchor}'" in page
    assert not re.findall(r"(?:src|href)=['\"]?(?:https?:)?//", page), "nothing is fetched from elsewhere"
    assert "<b>no</b> & never" not in page
    assert "&lt;b&gt;no&lt;/b&gt; &amp; never" in page
    data = json.loads(re.search(r"id=trials-data>(.*?)</script>", page).group(1))
    assert len(data) == 8
    assert page.count("data-trial=") > 8 * 4
    assert "--config_path=" in page


def test_a_page_of_nothing_and_of_one(tmp_path):
    plan = plan_of(tmp_path / "none", num_trials=1)
    queue = TrialQueue(plan, [])
    queue.record("start", sweep=plan.fingerprint(), slots=1, steps=100, words=[])
    assert "no trial brought a value" in page_html(plan, queue.state)
    one = swept(tmp_path / "one", count=1)
    assert "trial 000" in page_html(one.plan, one.state)


def test_best_settings_are_a_config_file(tmp_path):
    queue = swept(tmp_path)
    best = best_trial(queue.state)
    path = save_best(queue.plan, best)
    again = parse_train_config([f"--config_path={path}"])
    assert again.optimizer.lr == best.values["optimizer.lr"]
    assert again.optimizer.type == best.values["optimizer.type"]
    assert (again.batch_size, again.steps, again.policy.type) == (best.values["batch_size"], 100, "act")
    assert again.dataset.repo_id == "tests/toy"
    assert len(yaml.safe_load(path.read_text())) < 10, "what was given, not every default"
    (command,) = commands(queue.plan, best).values()
    assert parse_train_config(command.split()[3:]).batch_size == best.values["batch_size"]


def test_what_mattered_is_found():
    generator = np.random.default_rng(0)
    lr, noise = 10 ** generator.uniform(-5, -1, 30), generator.uniform(0, 1, 30)
    scores = ((np.log10(lr) + 3) ** 2 + 0.05 * generator.random(30)).tolist()
    assert importance(lr.tolist(), scores, is_log=True) > 0.8
    assert importance(noise.tolist(), scores, is_log=False) < 0.3
    kinds = ["good" if score < 1 else "bad" for score in scores]
    assert importance(kinds, scores, is_log=False) > 0.5
    assert importance(lr[:3].tolist(), scores[:3], is_log=True) is None, "three trials say nothing"
