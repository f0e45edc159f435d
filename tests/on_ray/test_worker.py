"""Training through Ray: what it trains on, that the number of workers changes nothing, that a kill changes nothing."""

from __future__ import annotations

import json
import signal
import threading

import numpy as np
import pytest

from tests.on_ray.runs import (
    assert_same_run,
    checkpoint,
    command,
    kill_training_workers,
    losses,
    run_here,
    samples,
    start_apart,
    wait_until,
    weights,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = 60


@pytest.fixture(scope="module")
def unbroken(ray_cluster, toy_root, tmp_path_factory):
    """A run of one worker that nothing happened to."""
    output_dir = tmp_path_factory.mktemp("unbroken") / "run"
    assert run_here(command(toy_root, output_dir, f"--steps={STEPS}", "--batch_size=4")) == 0
    return output_dir


def test_a_run_leaves_what_it_promises(unbroken):
    assert [path.name for path in sorted((unbroken / "checkpoints").iterdir()) if path.is_dir()][-1] == "last"
    state = json.loads((checkpoint(unbroken, STEPS) / "training_state" / "lerobot_ray_state.json").read_text())
    assert (state["step"], state["samples_seen"], state["global_batch"]) == (STEPS, STEPS * 4, 4)
    assert list(losses(unbroken)) == list(range(1, STEPS + 1))
    entries = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    beside_s = [4 / e["train/samples_per_s"] - e["train/step_s"] for e in entries if "train/samples_per_s" in e]
    assert np.median(beside_s) < 1, "logging waits for something"
    assert (unbroken / "report.html").stat().st_size > 1000
    q, step, _, _ = samples(unbroken)
    assert np.array_equal(q, np.arange(STEPS * 4))
    assert np.array_equal(step, q // 4)


def test_two_workers_compute_what_one_computes(ray_cluster, toy_root, tmp_path):
    """The same losses for the same global batches; dropout draws by rank, so it is off."""
    for name, flags in {"one": ["--batch_size=8"], "two": ["--batch_size=4", "--ray.num_workers=2"]}.items():
        flags += ["--policy.dropout=0", "--steps=6", "--dataset.eval_split=0.25", "--eval_steps=6"]
        assert run_here(command(toy_root, tmp_path / name, *flags)) == 0
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert list(two) == list(one) == list(range(1, 7))
    assert np.allclose(list(one.values()), list(two.values()), rtol=1e-4)
    assert np.array_equal(samples(tmp_path / "one"), samples(tmp_path / "two"))
    held_out = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    held_out = [[entry["eval/loss"] for entry in entries if "eval/loss" in entry] for entries in held_out]
    assert len(held_out[0]) == 1
    assert np.allclose(*held_out, rtol=1e-4)


def test_a_killed_worker_changes_nothing(unbroken, toy_root, tmp_path):
    output_dir, killed = tmp_path / "run", []

    def kill_after_the_first_checkpoint():
        wait_until(checkpoint(output_dir, 8).is_dir, within_s=240)
        killed.extend(kill_training_workers())

    killer = threading.Thread(target=kill_after_the_first_checkpoint)
    killer.start()
    code = run_here(command(toy_root, output_dir, f"--steps={STEPS}", "--batch_size=4"))
    killer.join()
    assert code == 0
    assert killed
    starts = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in starts if entry.get("event") == "start"][1] >= 8
    assert_same_run(output_dir, unbroken, step=STEPS)


def test_a_killed_and_then_stopped_driver_goes_on_where_it_was(unbroken, toy_root, tmp_path):
    """The same command line three times: killed, asked to stop, done."""
    output_dir, logs = tmp_path / "run", [tmp_path / f"log{number}" for number in range(3)]
    arguments = command(toy_root, output_dir, f"--steps={STEPS}", "--batch_size=4", "--resume=auto")
    driver = start_apart(arguments, logs[0])
    wait_until(checkpoint(output_dir, 8).is_dir, within_s=240)
    driver.kill()
    driver.wait()
    driver = start_apart(arguments, logs[1])
    wait_until(lambda: f"/{STEPS} · loss" in logs[1].read_text(), within_s=240)  # the first one may have been further
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=240) == 128 + signal.SIGTERM, logs[1].read_text()
    assert start_apart(arguments, logs[2]).wait(timeout=240) == 0, logs[2].read_text()
    assert_same_run(output_dir, unbroken, step=STEPS)


def test_what_would_only_come_again_ends_the_run_at_once_in_one_line(ray_cluster, tmp_path, capsys):
    from tests.make_dataset import make_dataset

    root = make_dataset(tmp_path / "broken", files="many")
    broken = sorted((root / "videos").rglob("*.mp4"))[1]
    broken.write_bytes(broken.read_bytes()[:200])
    assert run_here(command(root, tmp_path / "run")) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(said) == 1
    assert broken.name in said[0]
    starts = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len([entry for entry in starts if entry.get("event") == "start"]) == 1


def test_resuming_with_another_number_of_workers_keeps_the_global_batches(unbroken, toy_root, tmp_path):
    output_dir = tmp_path / "run"
    flags = [f"--steps={STEPS}", "--global_batch_size=4"]
    assert run_here(command(toy_root, output_dir, "--steps=8", *flags[1:])) == 0
    resumed = [f"--config_path={output_dir}", "--resume=true", "--ray.num_workers=2", *flags]
    assert run_here(resumed) == 0
    assert np.array_equal(samples(output_dir), samples(unbroken))
    assert weights(output_dir, STEPS).keys() == weights(unbroken, STEPS).keys()
