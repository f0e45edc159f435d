"""Is this dataset what its metadata says? Every file is held against info.json and the episode table.

First the metadata against itself and against the list of files, at once. Then the contents, file by file, on whatever
`Runner` the caller gives: rows (`validate_rows`) and pictures (`validate_video`). Last the statistics against what the
rows hold (`validate_stats`). Nothing stops at the first problem that can be walked around, and nothing is changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.core.layout import EPISODES_DIR, INFO_PATH, TASKS_PATH
from lerobot_ray.core.types import INDEX_FEATURES
from lerobot_ray.data.episode_table import read_episodes
from lerobot_ray.data.features import parse_feature
from lerobot_ray.data.info import read_info
from lerobot_ray.data.metadata import DatasetMetadata, read_tasks
from lerobot_ray.data.problems import Problem, bad_episodes, merged
from lerobot_ray.data.recording import SCRATCH_DIR
from lerobot_ray.data.runners import Processes, Runner, run_here, with_progress
from lerobot_ray.data.storage import Storage
from lerobot_ray.data.validate_rows import FETCH_AGAIN, RowsReport, RowsTask, check_rows
from lerobot_ray.data.validate_stats import check_stats
from lerobot_ray.data.validate_video import VideoTask, check_video, crashed

Place = tuple[int, int]


@dataclass
class Report:
    """What was found, and how much was looked at."""

    problems: list[Problem] = field(default_factory=list)
    episodes: int = 0
    frames: int = 0
    data_files: int = 0
    video_files: int = 0
    quick: bool = False

    @property
    def is_good(self) -> bool:
        """Nothing but warnings."""
        return all(problem.severity == "warning" for problem in self.problems)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        problems = [problem.as_json() for problem in self.problems]
        return {"good": self.is_good, "bad_episodes": bad_episodes(self.problems), "problems": problems}

    def in_words(self) -> str:
        """How much was looked at and how much is wrong, in a line."""
        looked = f"{self.episodes:,} episodes, {self.frames:,} frames in {self.data_files} data and "
        looked += f"{self.video_files} video files, " + (
            "three frames per episode decoded" if self.quick else "every frame decoded"
        )
        errors = sum(problem.severity == "error" for problem in self.problems)
        return f"{looked}: " + (f"{errors} problem{'s' if errors != 1 else ''}." if errors else "all good.")


def validate(
    repo_id: str, storage: Storage, *, quick: bool = False, workers: int | None = None, progress: bool | None = None
) -> Report:
    """Checks a dataset. `quick` decodes the first, middle and last frame of each episode instead of all.

    `workers`: processes to decode in, by default one per CPU; 1 stays in this process.
    """
    report = Report(quick=quick)
    metadata = _open(repo_id, storage, report)
    if metadata is not None:
        report.episodes, report.frames = metadata.total_episodes, metadata.total_frames
        report.problems += _check_totals(metadata)
        report.problems += _check_tasks(metadata)
        absent = _check_files(metadata, report)
        rows = [task for task in _rows_tasks(metadata, quick) if task.path not in absent]
        videos = [task for task in _video_tasks(metadata, quick) if task.path not in absent]
        report.data_files, report.video_files = len(rows), len(videos)
        if workers == 1:
            _check_contents(metadata, rows, videos, run_here, report, progress)
        else:
            with Processes(workers, on_crash=_crashed) as run:
                _check_contents(metadata, rows, videos, run, report, progress)
    report.problems = merged(report.problems)
    return report


def _check_contents(
    metadata: DatasetMetadata,
    rows: list[RowsTask],
    videos: list[VideoTask],
    run: Runner,
    report: Report,
    progress: bool | None,
) -> None:
    parts = list(with_progress(run, label="rows", enabled=progress)(check_rows, rows))
    for part in parts:
        report.problems += part.problems
    for problems in with_progress(run, label="videos", enabled=progress)(check_video, videos):
        report.problems += problems
    report.problems += check_stats(metadata, parts)


def _crashed(task: RowsTask | VideoTask) -> Any:
    if isinstance(task, VideoTask):
        return crashed(task)
    return RowsReport([Problem(task.path, "crashed the process that read it.", FETCH_AGAIN, task.episodes)])


def _open(repo_id: str, storage: Storage, report: Report) -> DatasetMetadata | None:
    """The metadata, without those checks of `open_metadata` that are made here; None when there is no way on."""
    if storage.exists(f"{SCRATCH_DIR}/recording.json") or storage.exists(f"{SCRATCH_DIR}/commit.json"):
        report.problems.append(
            Problem(
                SCRATCH_DIR,
                "an unfinished recording: its episodes are not part of the dataset yet.",
                "python -m lerobot_ray.dataset finish ROOT keeps every saved episode.",
            )
        )
    where = repo_id or storage.identity()
    try:
        info = read_info(storage, where)
        features = {name: parse_feature(name, entry, where=INFO_PATH) for name, entry in info["features"].items()}
        video_keys = [name for name, spec in features.items() if spec.is_video]
    except LerobotRayError as error:
        report.problems.append(Problem(INFO_PATH, *_split(error)))
        return None
    if missing := [name for name in INDEX_FEATURES if name not in features]:
        report.problems.append(Problem(INFO_PATH, f"has no feature {', '.join(missing)}.", "Add it as LeRobot has it."))
    try:
        episodes = read_episodes(storage, video_keys=video_keys, where=where)
    except LerobotRayError as error:
        report.problems.append(Problem(EPISODES_DIR, *_split(error)))
        return None
    try:
        tasks = read_tasks(storage, where)
    except LerobotRayError as error:
        report.problems.append(Problem(TASKS_PATH, *_split(error)))
        tasks = []
    return DatasetMetadata(where, storage, info, info["fps"], features, episodes, tasks)


def _split(error: LerobotRayError) -> tuple[str, str]:
    """An error's message as what is wrong and what to do."""
    problem, _, remedy = str(error).partition(". ")
    return problem.rstrip(".") + ".", remedy


def _check_totals(metadata: DatasetMetadata) -> Iterable[Problem]:
    info = metadata.info
    for key, count in (("total_episodes", metadata.total_episodes), ("total_frames", metadata.total_frames)):
        if info.get(key, count) != count:
            text = f"{key} is {info[key]}; the episode table holds {count}."
            yield Problem(INFO_PATH, text, "The copy is incomplete, or info.json was edited: fetch it again.")
    if info.get("total_tasks", len(metadata.tasks)) != len(metadata.tasks):
        text = f"total_tasks is {info['total_tasks']}; {TASKS_PATH} holds {len(metadata.tasks)}."
        yield Problem(INFO_PATH, text, "Nothing reads it; correct it when convenient.", severity="warning")


def _check_tasks(metadata: DatasetMetadata) -> Iterable[Problem]:
    table, known = metadata.episodes, set(metadata.tasks)
    if len(known) != len(metadata.tasks):
        double = sorted({task for task in metadata.tasks if metadata.tasks.count(task) > 1})
        text = f"lists {double[0]!r} more than once."
        yield Problem(TASKS_PATH, text, "The same task trains under two numbers.", severity="warning")
    for episode in range(len(table)):
        if unknown := [task for task in table.tasks(episode) if task not in known]:
            text = f"tasks of the episode include {unknown[0]!r}, which {TASKS_PATH} does not have."
            yield Problem(EPISODES_DIR, text, "Add the task, or correct the episode's.", (episode,))
        if table.length[episode] == 0:
            yield Problem(EPISODES_DIR, "the episode has no frames.", "Exclude it.", (episode,))


def _check_files(metadata: DatasetMetadata, report: Report) -> set[str]:
    """Reports missing and stray files; the paths that are missing."""
    table = metadata.episodes
    present = metadata.storage.glob("data/*/*.parquet")
    wanted = _episodes_by_path(table.data_chunk, table.data_file, metadata.data_path)
    absent = _report_absent(metadata, wanted, set(present), report)
    for path in present:
        if path not in wanted:
            text = "belongs to no episode, but LeRobot reads every parquet file below data/: all rows after it shift."
            report.problems.append(Problem(path, text, "Move it out of data/."))
    expected = [path for path in wanted if path in set(present)]  # in row order
    if expected != [path for path in present if path in wanted]:
        text = "sorted by name, the files are not in the order of their rows, in which LeRobot reads them."
        report.problems.append(Problem("data/", text, "Rename them, or write the dataset anew."))
    for key in metadata.video_keys:
        at = _videos_by_path(metadata, key)
        videos = set(metadata.storage.glob(f"videos/{key}/*/*.mp4"))
        absent |= _report_absent(metadata, at, videos, report)
        report.problems += _overlaps(metadata, key, at)
        for path in sorted(videos - set(at)):
            text = "belongs to no episode."
            report.problems.append(Problem(path, text, "It only takes room; delete it.", severity="warning"))
    return absent


def _episodes_by_path(
    chunk: np.ndarray, file: np.ndarray, path_of: Callable[[int, int], str]
) -> dict[str, tuple[int, ...]]:
    by_place: dict[Place, list[int]] = defaultdict(list)
    for episode, place in enumerate(zip(chunk.tolist(), file.tolist(), strict=True)):
        by_place[place].append(episode)
    return {path_of(*place): tuple(episodes) for place, episodes in by_place.items()}


def _videos_by_path(metadata: DatasetMetadata, key: str) -> dict[str, tuple[int, ...]]:
    places = metadata.episodes.video[key]
    return _episodes_by_path(places.chunk, places.file, partial(metadata.video_path, key))


def _report_absent(
    metadata: DatasetMetadata, wanted: dict[str, tuple[int, ...]], present: set[str], report: Report
) -> set[str]:
    # Templates need not follow the usual layout, so a path the listing lacks is asked for by name.
    absent = [path for path in wanted if path not in present and not metadata.storage.exists(path)]
    for path in absent:
        remedy = "Fetch it again, or exclude its episodes."
        report.problems.append(Problem(path, "is missing.", remedy, wanted[path]))
    return set(absent)


def _overlaps(metadata: DatasetMetadata, key: str, by_path: dict[str, tuple[int, ...]]) -> Iterable[Problem]:
    """Episodes that share frames of a video: one of them shows another episode's pictures."""
    table, places = metadata.episodes, metadata.episodes.video[key]
    for path, numbers in by_path.items():
        order = np.array(numbers)[np.argsort(places.from_s[list(numbers)], kind="stable")]
        ends = places.from_s[order] + table.length[order] / metadata.fps
        for place in np.flatnonzero(ends[:-1] > places.from_s[order[1:]] + 0.5 / metadata.fps):
            pair = (int(order[place]), int(order[place + 1]))
            text = f"episodes {pair[0]} and {pair[1]} use the same frames of the video."
            yield Problem(path, text, "Correct from_timestamp in the episode table, or exclude both.", pair)


def _rows_tasks(metadata: DatasetMetadata, quick: bool) -> list[RowsTask]:
    table = metadata.episodes
    columns = tuple(spec for spec in metadata.features.values() if not spec.is_video)
    number = {task: position for position, task in reversed(list(enumerate(metadata.tasks)))}
    return [
        RowsTask(
            storage=metadata.storage,
            path=path,
            fps=metadata.fps,
            columns=columns,
            episodes=episodes,
            first_rows=tuple(table.from_index[list(episodes)].tolist()),
            lengths=tuple(table.length[list(episodes)].tolist()),
            tasks=tuple(frozenset(number[t] for t in table.tasks(e) if t in number) for e in episodes),
            quick=quick,
        )
        for path, episodes in _episodes_by_path(table.data_chunk, table.data_file, metadata.data_path).items()
    ]


def _video_tasks(metadata: DatasetMetadata, quick: bool) -> list[VideoTask]:
    table, tasks = metadata.episodes, []
    for key in metadata.video_keys:
        places = table.video[key]
        for path, numbers in _videos_by_path(metadata, key).items():
            episodes = list(numbers)
            tasks.append(
                VideoTask(
                    storage=metadata.storage,
                    path=path,
                    spec=metadata.features[key],
                    fps=metadata.fps,
                    episodes=numbers,
                    from_s=tuple(places.from_s[episodes].tolist()),
                    to_s=tuple(places.to_s[episodes].tolist()),
                    lengths=tuple(table.length[episodes].tolist()),
                    quick=quick,
                )
            )
    return tasks
