"""The episode table of a dataset being written: where each episode is, and its own statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_ray.core.layout import EPISODES_DIR, EPISODES_TEMPLATE, next_file
from lerobot_ray.core.types import EPISODE_INDEX
from lerobot_ray.data.disk import publish, unfinished_name
from lerobot_ray.data.recording import DATA_KIND, Place, Recording

EPISODES_PER_ROW_GROUP = 500


def write_episodes(recording: Recording) -> None:
    """Writes the rows of the saved episodes into `ready`, in as many files as their size asks for."""
    header, episodes = recording.header, recording.episodes
    if not episodes:
        return
    rows = _episode_rows(recording)
    place: Place = tuple(header["first_episodes_place"])
    like = _existing_schema(recording.root)
    limit = header["data_files_size_in_mb"] * 1024**2
    while rows:
        path = recording.folder / "ready" / EPISODES_TEMPLATE.format(chunk_index=place[0], file_index=place[1])
        with open(unfinished_name(path), "wb") as file:
            writer: pq.ParquetWriter | None = None
            while rows and (writer is None or file.tell() < limit):
                batch, rows = rows[:EPISODES_PER_ROW_GROUP], rows[EPISODES_PER_ROW_GROUP:]
                table = _episode_table(batch, place, like)
                writer = writer or pq.ParquetWriter(file, table.schema, compression="snappy", use_dictionary=True)
                writer.write_table(table)
            assert writer is not None
            writer.close()
        publish(path, durable=recording.durable)
        place = next_file(*place, chunks_size=header["chunks_size"])


def _episode_rows(recording: Recording) -> list[dict[str, Any]]:
    header = recording.header
    places = {kind: recording.places(kind) for kind in recording.kinds}
    rows, first, frames_in_file = [], header["base"]["frames"], dict.fromkeys(recording.video_keys, 0)
    for number, document in enumerate(recording.episodes):
        length = document["length"]
        row: dict[str, Any] = {
            EPISODE_INDEX: document[EPISODE_INDEX],
            "tasks": document["tasks"],
            "length": length,
            "data/chunk_index": places[DATA_KIND][number][0],
            "data/file_index": places[DATA_KIND][number][1],
            "dataset_from_index": first,
            "dataset_to_index": first + length,
        }
        for key in recording.video_keys:
            chunk, file = places[key][number]
            if number and places[key][number - 1] != (chunk, file):
                frames_in_file[key] = 0
            start = frames_in_file[key]
            frames_in_file[key] = start + length
            row |= {
                f"videos/{key}/chunk_index": chunk,
                f"videos/{key}/file_index": file,
                f"videos/{key}/from_timestamp": start / header["fps"],
                f"videos/{key}/to_timestamp": (start + length) / header["fps"],
            }
        for name, entry in document["stats"].items():
            row |= {f"stats/{name}/{statistic}": value for statistic, value in entry.items()}
        rows.append(row)
        first += length
    return rows


def _episode_table(rows: Sequence[Mapping[str, Any]], place: Place, like: pa.Schema | None) -> pa.Table:
    rows = [{**row, "meta/episodes/chunk_index": place[0], "meta/episodes/file_index": place[1]} for row in rows]
    schema = like if like is not None else pa.schema([(name, _episode_type(name, rows[0][name])) for name in rows[0]])
    return pa.table(
        {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema}, schema
    )


def _episode_type(name: str, value: Any) -> pa.DataType:
    if name == "tasks":
        return pa.list_(pa.string())
    if name.endswith("_timestamp"):
        return pa.float64()
    if not name.startswith("stats/"):
        return pa.int64()
    if name.endswith("/count"):
        return pa.list_(pa.int64())
    kind = pa.float64()
    while isinstance(value, list):
        kind, value = pa.list_(kind), value[0]
    return kind


def _existing_schema(root: Path) -> pa.Schema | None:
    """The columns of a dataset that is being added to: all its episode files must have the same."""
    files = sorted((root / EPISODES_DIR).glob("*/*.parquet"))
    return pq.read_schema(files[0]) if files else None
