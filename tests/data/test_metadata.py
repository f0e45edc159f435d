"""Opening a dataset's metadata: tolerant where the format is, strict where a wrong frame would follow."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot_ray.core.errors import DatasetError, VersionError
from lerobot_ray.data.features import parse_feature
from lerobot_ray.data.metadata import (
    check_files,
    check_same_features,
    features_fingerprint,
    open_metadata,
    stats_of_samples,
)

GOLDENS = Path(__file__).parent / "goldens"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of four episodes that a test may damage."""
    return Path(shutil.copytree(GOLDENS / "two_cameras" / "dataset", tmp_path / "dataset"))


def edit_info(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    info = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in info.items() if value is not ...}))


def edit_table(path: Path, **columns) -> None:
    """Replace columns of a parquet file; a name is given with "__" for "/"."""
    table = pq.read_table(path)
    for name, values in columns.items():
        name = name.replace("__", "/")
        at = table.schema.get_field_index(name)
        table = table.remove_column(at) if values is None else table.set_column(at, name, pa.array(values))
    pq.write_table(table, path)


def test_reads_what_lerobot_wrote(root):
    metadata = open_metadata("me/two_cameras", root=root)
    assert (metadata.total_episodes, metadata.total_frames, metadata.fps) == (4, 29, 10)
    assert metadata.robot_type == "toy"
    assert metadata.tasks == ["push the block", "open the drawer"]
    assert metadata.camera_keys == metadata.video_keys == ["observation.images.front", "observation.images.wrist"]
    assert metadata.image_keys == metadata.depth_keys == []
    assert metadata.features["observation.images.front"].channels_first_shape == (3, 64, 96)
    episodes = metadata.episodes
    assert episodes.length.tolist() == [7, 9, 5, 8]
    assert episodes.to_index.tolist() == [7, 16, 21, 29]
    assert episodes.data_file.tolist() == [0, 1, 1, 2]
    assert episodes.video["observation.images.wrist"].file.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(episodes.video["observation.images.front"].from_s, [0, 0.7, 1.6, 0])
    assert sorted(episodes.tasks(2)) == ["open the drawer", "push the block"]
    assert episodes.first_task == [episodes.tasks(episode)[0] for episode in range(4)]
    assert (episodes.data_files.start.tolist(), episodes.data_files.stop.tolist()) == ([0, 7, 21], [7, 21, 29])
    assert (
        metadata.video_path("observation.images.front", 0, 1)
        == "videos/observation.images.front/chunk-000/file-001.mp4"
    )
    check_files(metadata)


def test_episode_of_rows(root):
    episodes = open_metadata("x/y", root=root).episodes
    assert episodes.episode_of_rows(np.array([28, 0, 6, 7, 20, 21])).tolist() == [3, 0, 0, 1, 2, 3]


def test_statistics_are_read_on_first_use(root):
    metadata = open_metadata("x/y", root=root)
    stats = metadata.stats
    assert stats["observation.state"]["mean"].shape == (4,)
    assert stats["observation.images.front"]["std"].shape == (3, 1, 1)
    assert stats["action"]["count"].tolist() == [29]
    assert metadata.stats is stats


def test_smallest_dataset_opens():
    metadata = open_metadata("x/y", root=GOLDENS / "minimal" / "dataset")
    assert metadata.stats is None
    assert metadata.tasks == ["walk"]
    assert metadata.robot_type is None
    assert metadata.episodes.length.tolist() == [7, 9, 5]


def test_episode_table_leaves_the_statistics_on_disk(root):
    edit_table(root / EPISODES, stats__action__mean=["not even numbers"] * 4)
    assert len(open_metadata("x/y", root=root).episodes) == 4


def test_metadata_travels(root):
    metadata = open_metadata("x/y", root=root)
    again = pickle.loads(pickle.dumps(metadata))
    assert again.episodes.to_index.tolist() == metadata.episodes.to_index.tolist()
    assert again.episodes.tasks(2) == metadata.episodes.tasks(2)
    assert again.features == metadata.features


def test_unknown_keys_warn(root, caplog):
    edit_info(root, flavour="vanilla")
    with caplog.at_level(logging.WARNING):
        open_metadata("x/y", root=root)
    assert "flavour" in caplog.text


def test_newer_minor_version_warns(root, caplog):
    edit_info(root, codebase_version="v3.1")
    with caplog.at_level(logging.WARNING):
        assert open_metadata("x/y", root=root).total_frames == 29
    assert "v3.1" in caplog.text


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("v2.1", "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=me/old"),
        ("v2.0", "convert_dataset_v21_to_v30 --repo-id=me/old"),
        ("v1.6", "v1.6"),
        ("v4.0", "v4.0, newer than v3.0"),
        ("soon", "'soon'"),
    ],
)
def test_other_versions_are_refused(root, version, says):
    edit_info(root, codebase_version=version)
    with pytest.raises(VersionError, match=says.replace(".", r"\.")):
        open_metadata("me/old", root=root)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fps": 0}, "fps .* is 0"),
        ({"fps": ...}, "no 'fps'"),
        ({"features": ...}, "no 'features'"),
        ({"total_frames": 30}, "total_frames .* is 30, the episode table holds 29"),
        ({"total_episodes": 5}, "total_episodes .* is 5, the episode table holds 4"),
    ],
)
def test_info_that_cannot_be_relied_on(root, changes, says):
    edit_info(root, **changes)
    with pytest.raises(DatasetError, match=says):
        open_metadata("x/y", root=root)


def test_missing_and_damaged_files_are_named(root):
    for path, says in [
        ("meta/info.json", "not a LeRobot dataset"),
        ("meta/tasks.parquet", "meta/tasks.parquet is missing"),
        (EPISODES, "no files under meta/episodes"),
    ]:
        whole = (root / path).read_bytes()
        (root / path).unlink()
        with pytest.raises(DatasetError, match=says):
            open_metadata("x/y", root=root)
        (root / path).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DatasetError, match=path):
            open_metadata("x/y", root=root)
        (root / path).write_bytes(whole)
    open_metadata("x/y", root=root)


def test_missing_video_or_data_file_of_a_selected_episode_is_named(root):
    (root / "videos/observation.images.front/chunk-000/file-001.mp4").unlink()
    (root / "data/chunk-000/file-000.parquet").unlink()
    metadata = open_metadata("x/y", root=root)
    check_files(metadata, [1, 2])
    with pytest.raises(DatasetError, match=r"front/chunk-000/file-001\.mp4 missing"):
        check_files(metadata, [3])
    with pytest.raises(DatasetError, match=r"data/chunk-000/file-000\.parquet missing"):
        check_files(metadata)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"episode_index": [0, 1, 3, 2]}, "row 2 of meta/episodes/ is episode 3"),
        ({"length": [7, 9, 5, 9]}, "episode 3 .* length 9"),
        ({"dataset_from_index": [0, 8, 16, 21], "length": [7, 8, 5, 8]}, "episode 1 .*rows 8 to 16"),
        ({"data__file_index": [0, 1, 0, 2]}, "chunk-000/file-000 are not next to each other"),
        ({"length": None}, "no column 'length'"),
        ({"data__chunk_index": [0, None, 0, 0]}, "data/chunk_index is missing for episode 1"),
    ],
)
def test_broken_promises_of_the_episode_table(root, columns, says):
    edit_table(root / EPISODES, **columns)
    with pytest.raises(DatasetError, match=says):
        open_metadata("x/y", root=root)


def test_tasks_must_be_in_row_order(root):
    edit_table(root / "meta/tasks.parquet", task_index=[1, 0])
    with pytest.raises(DatasetError, match="row i must be task i"):
        open_metadata("x/y", root=root)


def test_task_labels_under_any_index_name(root):
    pq.write_table(pa.table({"task_index": [0, 1], "__index_level_0__": ["a", "b"]}), root / "meta/tasks.parquet")
    assert open_metadata("x/y", root=root).tasks == ["a", "b"]


def test_episodes_over_many_files(root):
    table = pq.read_table(root / EPISODES)
    pq.write_table(table.slice(0, 3), root / EPISODES)
    other = root / "meta/episodes/chunk-001/file-000.parquet"
    other.parent.mkdir()
    pq.write_table(table.slice(3), other)
    metadata = open_metadata("x/y", root=root)
    assert metadata.episodes.length.tolist() == [7, 9, 5, 8]
    assert metadata.episodes.tasks(3) == ["open the drawer"]


def test_not_finite_statistics_are_refused(root):
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    stats["action"]["std"][1] = float("nan")
    path.write_text(json.dumps(stats))
    metadata = open_metadata("x/y", root=root)
    with pytest.raises(DatasetError, match="std of action"):
        _ = metadata.stats


@pytest.mark.parametrize("unit", ["mm", "m"])
def test_statistics_of_depth_follow_the_unit_of_samples(unit):
    """Numbers of LeRobot 0.6.1 for the same dataset, to the digits printed there."""
    metadata = open_metadata("x/y", root=GOLDENS / "depth_video" / "dataset")
    stats = stats_of_samples(metadata, depth_output_unit=unit)
    scale = 1 if unit == "mm" else 1000
    for key, mean in (("observation.images.depth", 1310.3181818), ("observation.images.depth_m", 1310.3181448)):
        np.testing.assert_allclose(stats[key]["mean"], [[[mean / scale]]], rtol=1e-9)
        assert stats[key]["count"].tolist() == [11]
    assert stats["action"] is metadata.stats["action"]
    assert stats_of_samples(open_metadata("x/y", root=GOLDENS / "minimal" / "dataset")) is None


@pytest.mark.parametrize(
    ("name", "entry", "says"),
    [
        ("a/b", {"dtype": "float32", "shape": [1]}, 'contains "/"'),
        ("a", {"dtype": "float32"}, "needs a dtype and a shape"),
        ("a", {"dtype": "float32", "shape": [0]}, "positive"),
        ("a", {"dtype": "float31", "shape": [1]}, "float31"),
        ("a", {"dtype": "float32", "shape": [1] * 6}, "6 dimensions"),
        ("a", {"dtype": "video", "shape": [64, 96]}, "height, width, channels"),
    ],
)
def test_features_that_cannot_be_used(name, entry, says):
    with pytest.raises(DatasetError, match=says):
        parse_feature(name, entry, where="x/y: meta/info.json")


@pytest.mark.parametrize(
    "marker",
    [
        {"info": {"is_depth_map": True}},
        {"info": {"video.is_depth_map": True}},
        {"video_info": {"video.is_depth_map": True}},
    ],
)
def test_depth_markers_old_and_new(marker):
    spec = parse_feature("d", {"dtype": "video", "shape": [4, 6, 1], "names": None, **marker}, where="x")
    assert spec.is_depth
    assert not parse_feature("d", {"dtype": "video", "shape": [4, 6, 3]}, where="x").is_depth


@pytest.mark.parametrize(
    ("shape", "names", "expected"),
    [
        ([64, 96, 3], ["height", "width", "channels"], (3, 64, 96)),
        ([64, 96, 3], ["height", "width", "channel"], (3, 64, 96)),
        ([3, 64, 96], ["channels", "height", "width"], (3, 64, 96)),
        ([64, 96, 3], None, (3, 64, 96)),
        ([3, 64, 96], None, (3, 64, 96)),
    ],
)
def test_channels_first(shape, names, expected):
    spec = parse_feature("c", {"dtype": "video", "shape": shape, "names": names}, where="x")
    assert spec.channels_first_shape == expected


def test_changed_features_are_named(root):
    saved = json.loads(json.dumps(features_fingerprint(open_metadata("x/y", root=root))))
    check_same_features(saved, open_metadata("x/y", root=root))
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["action"]["shape"] = [5]
    features["observation.force"] = {"dtype": "float32", "shape": [1], "names": None}
    features["note"] = {"dtype": "string", "shape": [1], "names": None}
    del features["next.reward"]
    edit_info(root, features=features, fps=20)
    with pytest.raises(DatasetError) as caught:
        check_same_features(saved, open_metadata("x/y", root=root))
    for part in ("fps was 10, is 20", "shape was [4], is [5]", "observation.force is new", "next.reward is gone"):
        assert part in str(caught.value)
    assert "note" not in str(caught.value)
