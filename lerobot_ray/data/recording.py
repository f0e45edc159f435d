"""A recording that is not a dataset yet: what is on disk between the first frame and `finalize`.

    <root>/.recording/
        recording.json        what is being recorded, and where an append begins
        open/                 the episode under way; thrown away when the process ends
        episodes/000012/      a saved episode: data.parquet, one mp4 per camera, episode.json, cameras.npz
        ready/data/… videos/… files that are full, at their final paths
        commit.json           all of `ready` is complete: the moves that remain

A saved episode appears by one rename, a full file by another, and the dataset by the moves in `commit.json`, with
info.json last. So whatever moment the power fails, `Recording.load` finds every episode that was saved, and nothing
half-written can be taken for a dataset. Which file an episode goes to is a function of the sizes (`place_episodes`), so
it need not be stored. Each byte is written twice, once per episode and once in its file, however large the file grows.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lerobot_ray.core.layout import DATA_TEMPLATE, INFO_PATH, VIDEO_TEMPLATE, next_file
from lerobot_ray.data.disk import publish, read_json, sync_file, sync_folder, unfinished_name, write_json
from lerobot_ray.data.encode import concatenate

SCRATCH_DIR = ".recording"
DATA_KIND = "data"
"""Episodes are placed per kind: the table, and each video camera by its key."""

Place = tuple[int, int]
"""(chunk, file)."""


def place_episodes(
    sizes: Sequence[int],
    headers: Sequence[str],
    *,
    limit_bytes: float,
    first: Place,
    chunks_size: int,
    breaks: Collection[int] = (),
) -> list[Place]:
    """The file of each episode.

    A new one begins when this episode would reach the limit, when it differs from the one before in `headers`, and at
    the episodes whose numbers are in `breaks`.
    """
    places: list[Place] = []
    place, held = first, 0
    for number, (size, header) in enumerate(zip(sizes, headers, strict=True)):
        if number and (held + size >= limit_bytes or header != headers[number - 1] or number in breaks):
            place, held = next_file(*place, chunks_size=chunks_size), 0
        places.append(place)
        held += size
    return places


@dataclass
class Recording:
    """The folder `.recording` of a dataset root."""

    root: Path
    header: dict[str, Any]
    episodes: list[dict[str, Any]] = field(default_factory=list)
    """episode.json of every saved episode, in order."""
    durable: bool = True
    """Wait for the disk at every step that a power cut must not undo."""
    _filling: dict[str, tuple[int, Place]] = field(default_factory=dict)
    """Per kind, the file now being filled: how many episodes are in the files before it, and its place."""

    @property
    def folder(self) -> Path:
        return self.root / SCRATCH_DIR

    @staticmethod
    def start(root: Path, header: dict[str, Any], *, durable: bool = True) -> Recording:
        """Begins a recording in `root`, which exists or is made."""
        recording = Recording(root, header, durable=durable)
        (recording.folder / "episodes").mkdir(parents=True)
        write_json(recording.folder / "recording.json", header, durable=durable)
        return recording

    @staticmethod
    def load(root: Path) -> Recording | None:
        """The unfinished recording in `root`, or None. A commit that was interrupted is completed first."""
        recording = Recording(root, {})
        if (recording.folder / "commit.json").is_file():
            recording.finish_commit()
        if not (recording.folder / "recording.json").is_file():
            shutil.rmtree(recording.folder, ignore_errors=True)  # interrupted before it began, or while cleaning up
            return None
        recording.header = read_json(recording.folder / "recording.json")
        shutil.rmtree(recording.folder / "open", ignore_errors=True)
        folders = sorted((recording.folder / "episodes").iterdir())
        recording.episodes = [read_json(folder / "episode.json") for folder in folders]
        recording.stage()
        return recording

    def open_episode(self) -> Path:
        """An empty folder for the next episode's files."""
        folder = self.folder / "open"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def save_episode(self, document: dict[str, Any], camera_counts: dict[str, np.ndarray]) -> None:
        """The files in the open folder become a saved episode; from here on it survives."""
        folder = self.folder / "open"
        document["bytes"] = {
            DATA_KIND: (folder / "data.parquet").stat().st_size,
            **{key: (folder / f"{key}.mp4").stat().st_size for key in self.video_keys},
        }
        np.savez(folder / "cameras.npz", **camera_counts)  # type: ignore[arg-type]
        (folder / "episode.json").write_text(json.dumps(document), encoding="utf-8")
        if self.durable:
            for file in folder.iterdir():
                sync_file(file)
            sync_folder(folder)
        os.replace(folder, self._episode_folder(document["episode_index"]))
        if self.durable:
            sync_folder(self.folder / "episodes")
        self.episodes.append(document)
        self.stage()

    @property
    def video_keys(self) -> list[str]:
        return [key for key, entry in self.header["features"].items() if entry["dtype"] == "video"]

    @property
    def kinds(self) -> list[str]:
        return [DATA_KIND, *self.video_keys]

    def camera_counts(self) -> Iterator[dict[str, np.ndarray]]:
        """The arrays saved with each episode, in order."""
        for document in self.episodes:
            with np.load(self._episode_folder(document["episode_index"]) / "cameras.npz") as arrays:
                yield dict(arrays)

    def places(self, kind: str, *, start: int = 0, first: Place | None = None) -> list[Place]:
        """Where each saved episode's table or video goes, from episode number `start` of this recording on."""
        header, documents = self.header, self.episodes[start:]
        return place_episodes(
            [document["bytes"][kind] for document in documents],
            [document["decoders"].get(kind, "") for document in documents],
            limit_bytes=header["data_files_size_in_mb" if kind == DATA_KIND else "video_files_size_in_mb"] * 1024**2,
            first=first or tuple(header["first_place"][kind]),
            chunks_size=header["chunks_size"],
            breaks=[number - start for number in header.get("closed_at", [])],
        )

    def path(self, kind: str, place: Place) -> str:
        """The path of a file in the dataset."""
        template = DATA_TEMPLATE if kind == DATA_KIND else VIDEO_TEMPLATE
        return template.format(video_key=kind, chunk_index=place[0], file_index=place[1])

    def stage(self, *, last: bool = False) -> None:
        """Builds the files that are full, and with `last` the ones still filling, then drops the pieces."""
        if last and len(self.episodes) not in self.header.setdefault("closed_at", []):
            # If this is interrupted and more episodes follow, they must not be looked for in files built here.
            self.header["closed_at"].append(len(self.episodes))
            write_json(self.folder / "recording.json", self.header, durable=self.durable)
        for kind in self.kinds:
            start, first = self._filling.get(kind, (0, tuple(self.header["first_place"][kind])))
            groups = [(place, len(list(same))) for place, same in groupby(self.places(kind, start=start, first=first))]
            for place, number in groups if last else groups[:-1]:
                self._build(
                    kind, place, [document["episode_index"] for document in self.episodes[start : start + number]]
                )
                start += number
            if groups and not last:
                self._filling[kind] = (start, groups[-1][0])

    def commit(self) -> None:
        """Everything in `ready` becomes the dataset. info.json, which makes it one, moves last."""
        ready = self.folder / "ready"
        files = [path for path in ready.rglob("*") if path.is_file() and not path.name.startswith(".")]
        paths = [path.relative_to(ready).as_posix() for path in files]
        order = sorted(paths, key=lambda path: (path == INFO_PATH, path.startswith("meta/"), path))
        write_json(self.folder / "commit.json", order, durable=self.durable)
        self.finish_commit()

    def finish_commit(self) -> None:
        """The moves in commit.json that remain. May be repeated."""
        paths = read_json(self.folder / "commit.json")
        for path in paths:
            source, target = self.folder / "ready" / path, self.root / path
            if path == INFO_PATH:  # the others must be on disk before it says that they are there
                self._sync_folders_of(paths)
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
        self._sync_folders_of([INFO_PATH])
        # Before anything else goes, so that what is left is not taken for a recording.
        (self.folder / "recording.json").unlink(missing_ok=True)
        (self.folder / "commit.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sync_folders_of(self, paths: Sequence[str]) -> None:
        for folder in {(self.root / path).parent for path in paths} if self.durable else ():
            if folder.is_dir():
                sync_folder(folder)

    def discard(self) -> None:
        """Removes the recording with everything in it."""
        (self.folder / "recording.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _episode_folder(self, episode: int) -> Path:
        return self.folder / "episodes" / f"{episode:06d}"

    def _build(self, kind: str, place: Place, episodes: Sequence[int]) -> None:
        suffix = "data.parquet" if kind == DATA_KIND else f"{kind}.mp4"
        parts = [self._episode_folder(episode) / suffix for episode in episodes]
        target = self.folder / "ready" / self.path(kind, place)
        if not target.exists():
            (join_tables if kind == DATA_KIND else concatenate)(parts, target, durable=self.durable)
        for part in parts:
            part.unlink(missing_ok=True)


def join_tables(parts: Sequence[Path], target: Path, *, durable: bool = True) -> None:
    """One parquet file of several, a row group each, which appears when it is whole."""
    schema = pq.read_schema(parts[0])
    with pq.ParquetWriter(unfinished_name(target), schema, compression="snappy", use_dictionary=True) as writer:
        for part in parts:
            table = pq.read_table(part, partitioning=None)
            writer.write_table(table, row_group_size=max(1, len(table)))
    publish(target, durable=durable)
