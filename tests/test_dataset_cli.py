"""`python -m lerobot_ray.dataset`: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lerobot_ray.config.parse import parse_train_config
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.recording import SCRATCH_DIR
from lerobot_ray.data.writer import DatasetWriter
from lerobot_ray.dataset import main
from tests.make_dataset import make_dataset


@pytest.fixture
def root(tmp_path, toy_root):
    shutil.copytree(toy_root, tmp_path / "toy")
    return tmp_path / "toy"


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_info_in_words(capsys, root):
    code, out, err = run(capsys, "info", root)
    assert (code, err) == (0, "")
    assert "4 episodes   72 frames   7.2 s   2 tasks" in out
    assert "shoulder.pos, elbow.pos, wrist.pos, gripper.pos" in out
    assert "video h264" in out
    assert "2  pick up the cube" in out
    assert "for every feature, with quantiles" in out
    assert max(map(len, out.splitlines())) <= 160


def test_info_as_json(capsys, root):
    code, out, _ = run(capsys, "info", root, "--json")
    about = json.loads(out)
    assert code == 0
    assert (about["episodes"], about["frames"], about["fps"]) == (4, 72, 10)
    assert about["stats"] == {"missing": [], "quantiles": True}
    assert about["episode_lengths"] == {"min": 12, "median": 17.5, "max": 25}


@pytest.mark.parametrize(
    "named", [["{root}"], ["--root", "{root}"], ["--root={root}", "--repo_id=tests/toy"], ["--dataset.root={root}"]]
)
def test_a_dataset_can_be_named_in_several_ways(capsys, root, named):
    code, out, _ = run(capsys, "info", *(word.format(root=root) for word in named))
    assert code == 0
    assert "72 frames" in out


def test_a_dataset_is_found_by_name_where_lerobot_keeps_it(capsys, root, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    shutil.copytree(root, tmp_path / "home/me/toy")
    code, out, _ = run(capsys, "info", "me/toy")
    assert code == 0
    assert out.startswith("me/toy\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["infoo"], "there is no command 'infoo'; did you mean 'info'?"),
        (["info"], "which dataset? Give a folder, a URL, or USER/NAME on the Hub."),
        (["info", "./nowhere"], "there is no folder"),
        (["info", "a/b", "--root=c"], "the dataset is named twice"),
        (["info", "{root}", "--jsn"], "unrecognized arguments: --jsn"),
        (["preview", "{root}", "--episodes=1-x"], "'1-x' is not a number or a range"),
        (["preview", "{root}", "--episodes=9"], "there is no episode 9"),
        (["stats", "{root}/meta"], "no meta/info.json"),
        (["stats", "{root}", "--ray", "--address=127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
        (["finish", "{root}"], "no unfinished recording"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(capsys, root, arguments, message):
    code, out, err = run(capsys, *(argument.format(root=root) for argument in arguments))
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_validate_says_so_when_all_is_good(capsys, root, tmp_path):
    code, out, _ = run(capsys, "validate", root, "--workers=1", "--quarantine", tmp_path / "bad.json")
    assert code == 0
    assert "4 episodes, 72 frames in 1 data and 1 video files, every frame decoded: all good." in out
    assert json.loads((tmp_path / "bad.json").read_text()) == []


def test_validate_lists_problems_and_quarantines_episodes(capsys, tmp_path):
    root = make_dataset(tmp_path / "toy", files="many")
    (root / "videos/observation.images.front/chunk-000/file-002.mp4").unlink()
    (root / "data/chunk-000/file-001.parquet").write_bytes(b"PAR1")
    bad = tmp_path / "bad.json"
    code, out, _ = run(capsys, "validate", root, "--quick", "--quarantine", bad)
    assert code == 1
    assert "is missing." in out
    assert "2 problems." in out
    text = bad.read_text()
    assert text == "[1, 2]"
    flags = ["--dataset.repo_id=a/b", "--policy.type=act", "--policy.push_to_hub=false"]
    config = parse_train_config([*flags, f"--dataset.exclude_episodes={text}"])
    assert config.dataset.exclude_episodes == [1, 2]

    code, out, _ = run(capsys, "validate", root, "--workers=1", "--json")
    report = json.loads(out)
    assert code == 1
    assert not report["good"]
    assert report["bad_episodes"] == [1, 2]
    assert {problem["file"] for problem in report["problems"]} >= {"data/chunk-000/file-001.parquet"}


def test_stats_agree_with_what_the_writer_wrote_but_for_coding_losses(capsys, tmp_path):
    root = make_dataset(tmp_path / "toy", cameras={}, image_cameras={"observation.image": (32, 48)})
    before = (root / "meta/stats.json").read_bytes()
    code, out, _ = run(capsys, "stats", root, "--workers=1")
    assert code == 0
    assert out == "stats.json agrees with the data.\n"
    assert (root / "meta/stats.json").read_bytes() == before
    assert not (root / "meta/stats.json.bak").exists()
    run(capsys, "stats", root, "--workers=1", "--write")
    assert json.loads((root / "meta/stats.json").read_text()) == json.loads(before)


def test_stats_writes_and_keeps_the_old_file(capsys, root):
    path = root / "meta/stats.json"
    good = json.loads(path.read_text())
    wrong = json.loads(json.dumps(good))
    wrong["action"]["max"][1] += 3.0
    del wrong["observation.state"]
    path.write_text(json.dumps(wrong))
    code, out, _ = run(capsys, "stats", root, "--write", "--skip-cameras", "--workers=1")
    assert code == 0
    assert "observation.state: no statistics stored" in out
    assert "action[1]" in out
    assert json.loads(path.read_text()).keys() == good.keys()
    assert json.loads(path.read_text()) == good  # cameras as they were
    assert json.loads((root / "meta/stats.json.bak").read_text()) == wrong


def test_stats_repair_a_file_that_cannot_be_read(capsys, root, tmp_path):
    (root / "meta/stats.json").write_text("{")
    code, _, err = run(capsys, "stats", root, "--out", tmp_path / "new.json", "--workers=1")
    assert code == 0
    assert "stored statistics cannot be used" in err
    assert json.loads((tmp_path / "new.json").read_text())["observation.images.front"]["count"] == [72]
    code, _, _ = run(capsys, "stats", root, "--write", "--workers=1")
    assert np.isfinite(open_metadata("x", root=root).stats["action"]["q99"]).all()


@pytest.mark.ray
def test_stats_on_ray(capsys, root, ray_cluster, tmp_path):
    code, _, _ = run(capsys, "stats", root, "--ray", "--out", tmp_path / "ray.json")
    assert code == 0
    run(capsys, "stats", root, "--workers=1", "--out", tmp_path / "here.json")
    assert (tmp_path / "ray.json").read_bytes() == (tmp_path / "here.json").read_bytes()


def test_preview_writes_what_its_name_says(capsys, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "preview", root, "--episodes=0,2-3")[:2] == (0, "wrote toy_preview.html\n")
    text = (tmp_path / "toy_preview.html").read_text()
    assert [f"Episode {number}<" in text for number in range(4)] == [True, False, True, True]
    run(capsys, "preview", root, "--out", tmp_path / "sub/a.png", "--episodes", "0")
    assert (tmp_path / "sub/a.png").read_bytes().startswith(b"\x89PNG")
    run(capsys, "preview", root, "--out", tmp_path / "both", "--episodes", "0")
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["preview.html", "preview.png"]


def test_finish_turns_an_interrupted_recording_into_a_dataset(capsys, tmp_path):
    features = {"action": {"dtype": "float32", "shape": [1], "names": None}}
    writer = DatasetWriter(tmp_path / "w", repo_id="me/w", fps=10, features=features)
    for episode in range(2):
        for row in range(5):
            writer.add_frame({"action": np.float32(row + episode), "task": "t"})
        writer.save_episode()
    writer.close()
    assert run(capsys, "info", tmp_path / "w")[0] == 2
    code, out, _ = run(capsys, "finish", tmp_path / "w")
    assert code == 0
    assert out.endswith("w: 2 episodes, 10 frames\n")
    assert not (tmp_path / "w" / SCRATCH_DIR).exists()
    assert run(capsys, "validate", tmp_path / "w", "--workers=1")[0] == 0


def test_it_runs_as_a_module(root):
    command = [sys.executable, "-m", "lerobot_ray.dataset", "info", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "72 frames" in done.stdout
