"""The page as a whole, from run folders of many kinds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lerobot_ray.report import main
from lerobot_ray.report_page import write_report
from lerobot_ray.tracking.jsonl import METRICS_FILE, JsonlTracker
from lerobot_ray.tracking.protocol import Outcome
from tests.report_runs import RunShape, make_run
from tests.tracking.trackers import run_info

VOID = {"meta", "link", "br", "img", "input", "path", "rect", "circle", "line"}


class Page(HTMLParser):
    """Checks that tags close as they opened, and keeps what the tests ask about."""

    def __init__(self, path: Path):
        super().__init__()
        self.open, self.sections, self.urls, self.words, self.charts = [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in VOID or (tag == "path" and values.get("class") in ("restart", "bad")) or tag == "rect":
            self.open.append(tag)
        if tag == "section":
            self.sections.append(values["id"])
        self.urls += [values[name] for name in ("src", "href") if name in values]
        if "data-chart" in values:
            self.charts.append(json.loads(values["data-chart"]))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        while self.open and self.open[-1] == "rect" and tag != "rect":
            self.open.pop()  # one without a title closes itself
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)


@pytest.fixture(scope="module")
def full_run(tmp_path_factory):
    shape = RunShape(steps=1000, cuts=((430, 250, 0.5), (790, 750, 1.0)))
    return make_run(tmp_path_factory.mktemp("runs") / "full", shape)


@pytest.fixture(scope="module")
def full_page(full_run):
    return Page(write_report(full_run))


def test_a_full_run_has_every_section(full_page):
    assert full_page.sections == [
        "learning",
        "evaluation",
        "speed",
        "policy",
        "samples",
        "checkpoints",
        "attempts",
        "settings",
    ]
    names = {curve["name"] for chart in full_page.charts for curve in chart["curves"]}
    assert {"training", "held out", "held out, ema", "lr", "samples per second", "waiting for data"} <= names
    assert {"device", "host", "kld_loss", "l1_loss", "saving checkpoints", "preprocessing"} <= names
    for said in (
        "finished",
        "Finished at step 1,000 of 1,000",
        "lerobot/reach_pick (12 episodes",
        "on 2 workers, Example GPU",
        "220 steps were trained again after restarts",
        "3 attempts",
        "full epochs used every sample exactly once",
        "4 complete checkpoints",
        "Best success:",
        "policy.chunk_size",
        "Versions and hardware",
        "--audit=true",
    ):
        assert said in full_page.text, said


def test_the_page_needs_no_network(full_run, full_page):
    assert [url[:20] for url in full_page.urls] == ["data:video/mp4;base6"]
    source = (full_run / "report.html").read_text()
    assert "@import" not in source
    assert "url(" not in source
    assert set(re.findall(r"https?://[^\s\"'<]+", source)) <= {"http://www.w3.org/2000/svg"}


def test_curves_carry_what_the_model_was_trained_on(full_page):
    loss = next(chart for chart in full_page.charts if chart["curves"][0]["name"] == "training")["curves"][0]
    assert loss["x"] == list(range(10, 1001, 10))
    assert all(np.isfinite(loss["y"]))


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome("stopped"), "Stopped as asked at step 1,000"),
        (Outcome("failed", "NonFiniteError: <loss> & 'co'"), "Failed at step 1,000"),
        (None, "It was killed, or the machine went away"),
    ],
)
def test_how_a_run_ended(tmp_path, outcome, said):
    page = Page(write_report(make_run(tmp_path, RunShape(outcome=outcome, has_audit=False, has_eval=False))))
    assert said in page.text
    if outcome and outcome.message:
        assert outcome.message in page.text, "escaped, and back"
    assert "kept no record of its samples" in page.text
    assert "evaluation" not in page.sections


def test_a_run_that_is_alive_is_called_running(tmp_path):
    tracker = JsonlTracker()
    tracker.start(run_info(tmp_path))
    page = Page(write_report(tmp_path))
    assert "running" in page.text
    assert "No loss has been logged yet" in page.text
    tracker.log({"train/loss": 1.0}, step=1)
    assert "At step 1 of 1,000" in Page(write_report(tmp_path)).text


def test_numbers_that_are_not_finite_are_shown_not_hidden(tmp_path):
    tracker = JsonlTracker()
    tracker.start(run_info(tmp_path))
    for step in range(1, 61):
        loss = float("nan") if step > 40 else 1.0 / step
        rest = {
            name: float("nan") for name in ("step_s", "dataloading_s", "samples_per_s", "gpu_mem_gb", "lr", "epochs")
        }
        values = {"loss": loss, "skipped_steps": float(step > 40), **rest}
        tracker.log({f"train/{name}": value for name, value in values.items()}, step=step)
        tracker.log({"eval/loss": float("inf"), "eval/pc_success": float("nan")}, step=step)
    tracker.close(Outcome())
    page = Page(write_report(tmp_path))
    assert "The loss was not finite in 20 log lines, first at step 41" in page.text
    assert "Some steps were skipped" in page.text
    assert "step 41: not finite" in page.text


def test_hostile_names_are_text(tmp_path):
    evil = "<script>alert('x')</script>\"'"
    tracker = JsonlTracker()
    config = {"policy": {"type": evil}, "dataset": {"repo_id": evil}, evil: evil}
    tracker.start(run_info(tmp_path, name=evil, config=config, environment={"command": evil, evil: evil}))
    tracker.log({f"train/{evil}": 1.0, "train/loss": 2.0, f"eval/loss{evil}": 1.0, f"eval/{evil}": 1.0}, step=1)
    tracker.close(Outcome("failed", evil))
    page = Page(write_report(tmp_path))
    assert (tmp_path / "report.html").read_text().count("<script>") == 1
    assert evil in page.text


def test_a_command_breaks_between_its_flags_and_few_lines_have_no_running_mean(tmp_path):
    page = Page(write_report(make_run(tmp_path, RunShape(steps=100, has_audit=False, has_eval=False))))
    html = (tmp_path / "report.html").read_text()
    assert "<span>--policy.type=act</span> <span>--dataset.eval_split=0.1</span>" in html
    assert "running mean" not in page.text


def test_waiting_for_data_is_remarked_on(tmp_path):
    page = Page(write_report(make_run(tmp_path, RunShape(steps=1000, waits=0.2, has_audit=False, has_eval=False))))
    assert re.search(r"Training waited for data \d+ % of the time", page.text)
    assert "--num_workers" in page.text


def test_unfinished_and_foreign_checkpoints_are_told_apart(tmp_path):
    make_run(tmp_path, RunShape(has_audit=False, has_eval=False))
    parent = tmp_path / "checkpoints"
    (parent / "000500" / "pretrained_model" / "model.safetensors").write_bytes(b"cut short")
    (parent / ".writing-001250-3f1c").mkdir()
    shutil.rmtree(parent / "000250")
    page = Page(write_report(tmp_path))
    assert "2 complete checkpoints" in page.text
    assert "1 earlier one removed since" in page.text
    assert "Not a complete checkpoint: 000500, .writing-001250-3f1c" in page.text


def test_a_change_of_settings_between_attempts_is_shown(tmp_path):
    for number, first in enumerate((0, 5)):
        tracker = JsonlTracker()
        config = {"batch_size": 8 * (number + 1), "seed": 1, "policy": {"type": "act"}}
        tracker.start(run_info(tmp_path, first_step=first, config=config))
        tracker.log({"train/loss": 1.0}, step=first + 5)
        tracker.close(Outcome("stopped"))
    text = Page(write_report(tmp_path)).text
    assert re.search(r"Changed for attempt 2 setting before then batch_size 8 16", text)


def test_large_videos_are_links(tmp_path):
    make_run(tmp_path, RunShape(has_audit=False))
    video = next((tmp_path / "eval").rglob("*.mp4"))
    video.write_bytes(bytes(2_000_000))
    assert Page(write_report(tmp_path)).urls == ["eval/videos_step_1000/reach_0/eval_episode_0.mp4"]


def test_a_hundred_thousand_lines_make_a_small_page_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    names = ("loss", "grad_norm", "lr", "step_s", "dataloading_s", "update_s", "samples_per_s", "gpu_mem_gb")
    values = rng.lognormal(0, 0.3, (100_000, len(names)))
    values[70_000, 0] = 1e4
    with (tmp_path / METRICS_FILE).open("w") as file:
        file.write('{"event": "start", "step": 0, "time": 0, "attempt": 1, "total_steps": 100000, "name": "long"}\n')
        for step, row in enumerate(values.tolist(), start=1):
            pairs = ", ".join(f'"train/{name}": {value:.5g}' for name, value in zip(names, row, strict=True))
            file.write(f'{{"step": {step}, "time": {step}, "attempt": 1, {pairs}}}\n')
    started = time.perf_counter()
    path = write_report(tmp_path)
    assert time.perf_counter() - started < 60, "a few seconds; the limit is for a busy machine"
    assert path.stat().st_size < 600_000
    Page(path)


def test_the_command_writes_and_says_where(tmp_path, capsys):
    make_run(tmp_path / "run", RunShape(steps=50, has_audit=False, has_eval=False))
    assert main([str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "report.html")
    assert main([str(tmp_path / "run"), "--output", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").exists()


def test_a_folder_that_is_no_run_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "metrics.jsonl is not there" in capsys.readouterr().err
    (tmp_path / METRICS_FILE).write_text("\n{torn")
    assert main([str(tmp_path)]) == 2
    assert "no readable line" in capsys.readouterr().err


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """
<script>
const chart = document.querySelector("svg.chart"), box = chart.getBoundingClientRect();
chart.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, clientY: box.top + 50 }));
const tip = document.querySelector("#tip");
document.title = "tip: " + getComputedStyle(tip).display + " " + tip.innerText.replaceAll("\\n", " ");
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser")
def test_hovering_shows_the_numbers(full_run, tmp_path):
    page = write_report(full_run).read_text()
    (tmp_path / "probe.html").write_text(page.replace("</body>", f"{PROBE}</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    quiet = ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [CHROMIUM, *flags, *quiet, "--window-size=1200,900", "--dump-dom", f"file://{tmp_path}/probe.html"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout).group(1)
    assert re.match(r"tip: block step \d+ training ?[\d.]+ held out ?[\d.]+ held out, ema ?[\d.]+", title), title
