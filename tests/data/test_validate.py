"""Every kind of damage is found, named, and blamed on the right episodes; good datasets pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot_ray.data.problems import Problem, bad_episodes, merged, ranges, table
from lerobot_ray.data.recording import SCRATCH_DIR
from lerobot_ray.data.runners import Processes
from lerobot_ray.data.storage import LocalStorage
from lerobot_ray.data.validate import Report, validate
from lerobot_ray.data.writer import DatasetWriter
from tests.data.test_encode import encode
from tests.make_dataset import code_frame, make_dataset

FRONT = "observation.images.front"
DATA = "data/chunk-000/file-00{}.parquet"
VIDEO = f"videos/{FRONT}/chunk-000/file-00{{}}.mp4"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("pristine")
    image = {"image_cameras": {"observation.image": (32, 48)}}
    return {
        "one": make_dataset(made / "one", episodes=(8, 6, 5), **image),
        "many": make_dataset(made / "many", episodes=(8, 6, 5), files="many"),
    }


@pytest.fixture
def root(tmp_path, pristine, request) -> Path:
    """A copy to damage; parametrised indirectly with "one" or "many" files."""
    shutil.copytree(pristine[getattr(request, "param", "one")], tmp_path / "toy")
    return tmp_path / "toy"


many = pytest.mark.parametrize("root", ["many"], indirect=True)


def check(root: Path, **options) -> Report:
    return validate("tests/toy", LocalStorage(root), workers=1, **options)


def only(root: Path, **options) -> Problem:
    problems = check(root, **options).problems
    assert len(problems) == 1, table(problems)
    return problems[0]


def edit_table(path: Path, change: Callable[[dict[str, list]], None]) -> None:
    """Rewrites a parquet file with its columns changed as Python lists."""
    before = pq.read_table(path, partitioning=None)
    columns = {name: before[name].to_pylist() for name in before.column_names}
    change(columns)
    arrays = {f.name: pa.array(columns[f.name], f.type) for f in before.schema if f.name in columns}
    schema = pa.schema([f for f in before.schema if f.name in columns], metadata=before.schema.metadata)
    pq.write_table(pa.table(arrays, schema=schema), path)


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cell(column: str, row: int, value) -> Callable[[dict[str, list]], None]:
    def change(columns: dict[str, list]) -> None:
        columns[column][row] = value

    return change


@pytest.mark.parametrize("root", ["one", "many"], indirect=True)
@pytest.mark.parametrize("quick", [False, True])
def test_a_good_dataset_has_no_problems(root, quick):
    report = check(root, quick=quick)
    assert report.problems == []
    assert report.is_good
    assert (report.episodes, report.frames) == (3, 19)


@pytest.mark.parametrize(
    ("column", "row", "value", "text"),
    [
        ("index", 9, 10, "index is not what its place in the file says in frame 1."),
        ("episode_index", 13, 2, "episode_index is not what its place in the file says in frame 5."),
        ("frame_index", 8, 1, "frame_index is not what its place in the file says in frame 0."),
        ("timestamp", 10, 0.21, "timestamp is not frame_index / 10 in frame 2."),
        ("timestamp", 10, float("nan"), "timestamp is not frame_index / 10 in frame 2."),
        ("task_index", 9, 0, "task_index is not one of the episode's tasks in frame 1."),
        ("task_index", 9, 7, "task_index is not one of the episode's tasks in frame 1."),
        ("action", 11, [0.0, float("nan"), 0.0, 0.0], "action is NaN or infinite in frame 3."),
        ("next.reward", 12, float("inf"), "next.reward is NaN or infinite in frame 4."),
        ("next.done", 12, None, "next.done has no value in frame 4."),
    ],
)
def test_a_wrong_row_is_found_in_its_episode(root, column, row, value, text):
    edit_table(root / DATA.format(0), cell(column, row, value))
    problems = [problem for problem in check(root).problems if problem.problem == text]
    assert [(problem.file, problem.episodes, problem.severity) for problem in problems] == [
        (DATA.format(0), (1,), "error")
    ]


def test_timestamps_of_long_episodes_are_not_blamed_for_being_float32(tmp_path):
    features = {"action": {"dtype": "float32", "shape": [1], "names": None}}
    with DatasetWriter(tmp_path / "long", repo_id="x", fps=30, features=features) as writer:
        for row in range(40_000):
            writer.add_frame({"action": np.float32(row), "task": "t"})
        writer.save_episode()
    assert check(tmp_path / "long").problems == []


def test_a_damaged_image_is_found(root):
    image = "observation.image"
    edit_table(root / DATA.format(0), cell(image, 10, {"bytes": b"not a png", "path": "frame-000002.png"}))
    assert only(root).problem.startswith("observation.image: 1 images are bad, the first in frame 2:")
    assert only(root).episodes == (1,)


def test_a_missing_column_is_named(root):
    edit_table(root / DATA.format(0), lambda columns: columns.pop("next.done"))
    assert only(root).problem == "has no column next.done, which info.json lists."


@many
def test_missing_and_extra_rows_are_counted(root):
    edit_table(root / DATA.format(1), lambda columns: [values.pop() for values in columns.values()])
    problem = only(root)
    assert problem.problem == "has 5 rows; the episode table puts 6 here."
    assert problem.episodes == (1,)


@many
def test_missing_files_blame_their_episodes(root):
    (root / DATA.format(1)).unlink()
    (root / VIDEO.format(2)).unlink()
    found = {problem.file: (problem.problem, problem.episodes) for problem in check(root).problems}
    assert found == {DATA.format(1): ("is missing.", (1,)), VIDEO.format(2): ("is missing.", (2,))}


@many
def test_truncated_files_blame_their_episodes(root):
    for path in (root / DATA.format(1), root / VIDEO.format(2)):
        path.write_bytes(path.read_bytes()[:700])
    found = {problem.file: problem for problem in check(root).problems}
    assert found[DATA.format(1)].problem.startswith("cannot be read:")
    assert found[DATA.format(1)].episodes == (1,)
    assert found[VIDEO.format(2)].episodes == (2,)


@many
def test_a_stray_table_is_an_error_since_lerobot_reads_it(root):
    shutil.copy(root / DATA.format(0), root / "data/chunk-000/old.parquet")
    assert only(root).file == "data/chunk-000/old.parquet"
    assert "LeRobot reads every parquet file" in only(root).problem


@many
def test_files_out_of_order_are_an_error_since_lerobot_sorts_names(root):
    first, second = root / DATA.format(0), root / DATA.format(1)
    first.rename(root / "keep")
    second.rename(first)
    (root / "keep").rename(second)
    edit_table(root / EPISODES, lambda c: c.update({"data/file_index": [1, 0, 2]}))
    assert only(root).problem.startswith("sorted by name, the files are not in the order of their rows")


@many
def test_a_stray_video_is_only_a_warning(root):
    shutil.copy(root / VIDEO.format(0), root / VIDEO.format(9))
    assert only(root).severity == "warning"
    assert check(root).is_good


def test_a_video_that_ends_early_is_found(root):
    encode(root / VIDEO.format(0), range(16))
    problem = only(root)
    assert problem.episodes == (2,)
    assert problem.problem == "3 of 5 frames are missing, the first is frame 2 at 1.600 s: the file ends at 1.600 s."


def test_a_video_of_another_rate_is_found(root):
    encode(root / VIDEO.format(0), range(19), fps=12)
    problems = check(root).problems
    assert bad_episodes(problems) == [0, 1, 2]
    assert "frames are off the grid" in problems[0].problem


def test_a_video_of_another_size_is_found(root):
    encode(root / VIDEO.format(0), range(19), size=(48, 64))
    assert only(root).problem == "frames are 64x48; info.json says 96x64."


def test_frames_nobody_reads_are_a_warning(root):
    encode(root / VIDEO.format(0), range(21))
    assert (only(root).severity, only(root).problem) == ("warning", "holds 2 frames that belong to no episode.")


@pytest.mark.parametrize("quick", [False, True])
def test_frames_that_cannot_be_decoded_are_found(root, quick):
    """The first key frame of episode 1 is overwritten: everything else of the file stays good."""
    import av

    path = root / VIDEO.format(0)
    with av.open(str(path)) as container:
        packet = next(p for p in container.demux(video=0) if p.pts is not None and p.pts * p.time_base >= 0.79)
        start, size = packet.pos, packet.size
    content = bytearray(path.read_bytes())
    content[start : start + size] = bytes(255 - byte for byte in content[start : start + size])
    path.write_bytes(bytes(content))
    problem = only(root, quick=quick)
    assert problem.episodes == (1,)
    assert problem.problem.startswith("frames 0 to 5 cannot be had: ")


def test_overlapping_episodes_are_found(root):
    column = f"videos/{FRONT}/from_timestamp"
    edit_table(root / EPISODES, cell(column, 1, 0.5))
    problem = next(problem for problem in check(root).problems if "same frames" in problem.problem)
    assert problem.episodes == (0, 1)


def test_a_duration_that_disagrees_is_a_warning(root):
    edit_table(root / EPISODES, cell(f"videos/{FRONT}/to_timestamp", 2, 3.0))
    assert only(root).severity == "warning"
    assert only(root).problem == "the episode table gives it 1.600 s; 5 frames are 0.500 s."


def test_metadata_against_itself(root):
    edit_json(root / "meta/info.json", total_frames=20, total_tasks=5)
    found = {problem.problem: problem.severity for problem in check(root).problems}
    assert found == {
        "total_frames is 20; the episode table holds 19.": "error",
        "total_tasks is 5; meta/tasks.parquet holds 2.": "warning",
    }


def test_unknown_tasks_are_found(root):
    edit_table(root / EPISODES, cell("tasks", 2, ["dance"]))
    problems = check(root).problems
    assert any("'dance', which meta/tasks.parquet does not have" in problem.problem for problem in problems)
    assert bad_episodes(problems) == [2]


@pytest.mark.parametrize(
    ("damage", "file", "text"),
    [
        (lambda root: (root / "meta/info.json").unlink(), "meta/info.json", "has no meta/info.json"),
        (lambda root: (root / "meta/info.json").write_text("{"), "meta/info.json", "is not JSON"),
        (lambda root: edit_json(root / "meta/info.json", codebase_version="v2.1"), "meta/info.json", "v2.1"),
        (lambda root: shutil.rmtree(root / "meta/episodes"), "meta/episodes", "no files under meta/episodes"),
        (
            lambda root: edit_table(root / EPISODES, cell("episode_index", 1, 4)),
            "meta/episodes",
            "row 1 of meta/episodes/ is episode 4",
        ),
    ],
    ids=["no info", "broken info", "old format", "no episodes", "episodes out of order"],
)
def test_what_ends_the_check_is_one_problem_with_a_remedy(root, damage, file, text):
    damage(root)
    problem = only(root)
    assert problem.file == file
    assert text in problem.problem
    assert problem.remedy


def test_a_missing_task_table_is_found_and_the_rest_is_checked(root):
    (root / "meta/tasks.parquet").unlink()
    edit_table(root / DATA.format(0), cell("action", 11, [0.0, float("nan"), 0.0, 0.0]))
    problems = check(root).problems
    assert any(problem.file == "meta/tasks.parquet" for problem in problems)
    assert any("action is NaN" in problem.problem for problem in problems)


@pytest.mark.parametrize(
    ("change", "text", "severity"),
    [
        ({"action": None}, "has no entry for action.", "error"),
        ({"action": {"std": None}}, "action has no std.", "error"),
        ({"action": {"q99": None}}, "action has no q99, which QUANTILES normalisation needs.", "warning"),
        ({"action": {"mean": [0.0]}}, "action has a mean of shape [1]; expected [4].", "error"),
        ({"action": {"mean": [0.0, float("nan"), 0.0, 0.0]}}, "mean of action is not a finite number.", "error"),
        ({"action": {"std": [-1.0, 1.0, 1.0, 1.0]}}, "action has a negative std.", "error"),
        ({"action": {"q10": [9.0, 9.0, 9.0, 9.0]}}, "action has a q10 above its q50.", "error"),
        ({"action": {"count": [7]}}, "action was counted over 7 frames; the dataset has 19.", "warning"),
        (
            {"action": {"max": [0.05, 1.0, 1.0, 1.0], "q99": [0.05, 1, 1, 1], "q90": [0.05, 1, 1, 1]}},
            "action[0] lies in [0, 0.05] here, but in [0, 0.18] in the data.",
            "error",
        ),
        ({FRONT: {"mean": [0.1, 0.2, 0.3]}}, f"{FRONT} has a mean of shape [3]; expected [3, 1, 1].", "error"),
    ],
)
def test_statistics_that_cannot_be_normalised_with_are_found(root, change, text, severity):
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    for feature, entries in change.items():
        if entries is None:
            del stats[feature]
            continue
        for name, value in entries.items():
            stats[feature][name] = value
            if value is None:
                del stats[feature][name]
    path.write_text(json.dumps(stats))
    assert (text, severity) in [(problem.problem, problem.severity) for problem in check(root).problems]


def test_missing_statistics_are_an_error(root):
    (root / "meta/stats.json").unlink()
    assert "dataset stats ROOT --write" in only(root).remedy


def test_an_unfinished_recording_is_pointed_out(root):
    writer = DatasetWriter.resume(root, codec="h264")
    frame = {
        FRONT: code_frame(19, (64, 96)),
        "observation.image": code_frame(19, (32, 48)),
        "observation.state": np.zeros(4, np.float32),
        "action": np.zeros(4, np.float32),
        "next.reward": np.float32(0),
        "next.done": np.array(False),
        "task": "more",
    }
    writer.add_frame(frame)
    writer.save_episode()
    writer.close()
    assert only(root).file == SCRATCH_DIR
    assert "dataset finish" in only(root).remedy
    DatasetWriter.resume(root).finalize()
    assert check(root).problems == []


def _die(task: int) -> int:
    import os

    if task == 3:
        os._exit(9)
    return task * 10


def test_a_task_that_kills_its_process_costs_only_itself():
    with Processes(2, on_crash=lambda task: f"task {task} crashed") as run:
        assert list(run(_die, range(7))) == [0, 10, 20, "task 3 crashed", 40, 50, 60]


def test_problems_are_told_once_with_all_their_episodes():
    rows = [Problem("f", "is bad.", "Fix it.", (number,)) for number in (4, 0, 2, 3)]
    warning = Problem("", "is odd.", "Ignore it.", severity="warning")
    joined = merged([warning, *rows])
    assert joined == [Problem("f", "is bad.", "Fix it.", (0, 2, 3, 4)), warning]
    assert bad_episodes([warning, *rows]) == [0, 2, 3, 4]
    assert ranges([0, 2, 3, 4, 9]) == "0, 2–4, 9"
    text = table(joined, width=70)
    assert "0, 2–4" in text
    assert "is bad. Fix it." in text
    assert max(map(len, text.splitlines())) <= 70
    assert "… and 1 more" in table(joined, limit=1)
