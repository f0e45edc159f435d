"""Parquet data files as Arrow files that every process of a machine maps instead of reading.

A data file is converted once per machine: columns are brought to the types info.json promises, written uncompressed,
flushed to disk and renamed into place under a lock. A converter that is killed leaves a temporary file that nothing
takes for a whole one; the next process converts again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from lerobot_ray.core.errors import DatasetError, StorageError
from lerobot_ray.data.features import FeatureSpec

logger = logging.getLogger(__name__)

LAYOUT_VERSION = 1
"""Part of every cache key: raise it when converted files change shape."""


def converted_file(
    source: Path, path: str, *, identity: str, features: Mapping[str, FeatureSpec], cache_dir: Path, where: str
) -> Path:
    """The Arrow file of a data file, converted now if this machine has none. Safe from any number of processes.

    `source` is the parquet file, `path` its name in the dataset, `identity` the dataset's storage; `where` begins
    error messages.
    """
    stored = {name: spec for name, spec in features.items() if not spec.is_video}
    target = _target(source, path, identity, stored, cache_dir)
    if is_whole(target):
        return target
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / f"{target.name.partition('-')[0]}.lock"):
            if not is_whole(target):  # another process may have been faster
                _convert(source, target, stored, f"{where}: {path}")
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{where}: cannot write {target} ({error}). Make room there, or point LEROBOT_RAY_CACHE at a larger disk."
        ) from error
    return target


def is_whole(file: Path) -> bool:
    """Whether `file` is a finished Arrow file. Its footer is written last, so reading that is enough."""
    try:
        with pa.memory_map(str(file)) as mapped:
            return pa.ipc.open_file(mapped).num_record_batches == 1
    except (pa.ArrowException, OSError):
        return False


def _target(source: Path, path: str, identity: str, stored: Mapping[str, FeatureSpec], cache_dir: Path) -> Path:
    """Where the conversion of exactly this file, read with exactly these features, belongs."""
    status = source.stat()
    columns = [[name, spec.dtype, list(spec.shape)] for name, spec in stored.items()]
    place = _digest([identity, path])
    content = _digest([LAYOUT_VERSION, status.st_size, status.st_mtime_ns, columns])
    return cache_dir / f"{place}-{content}.arrow"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:20]


def _convert(source: Path, target: Path, stored: Mapping[str, FeatureSpec], where: str) -> None:
    logger.info("converting %s for memory-mapped reading", where)
    batch = _read(source, stored, where)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
    _remove_older(target)


def _flush(path: Path) -> None:
    """Force a file, or a folder's list of names, to disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders, and does not need to
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_older(target: Path) -> None:
    """Conversions of earlier versions of the same file, and what killed converters left. Mapped ones live on."""
    place = target.name.partition("-")[0]
    for old in target.parent.glob(f"{place}-*"):
        if old.suffix in (".arrow", ".tmp") and old != target:
            old.unlink(missing_ok=True)


def _read(source: Path, stored: Mapping[str, FeatureSpec], where: str) -> pa.RecordBatch:
    """The whole file as one record batch, read column by column so that only one is held twice."""
    columns = {}
    try:
        with pq.ParquetFile(source) as file:
            present = set(file.schema_arrow.names)
            for name, spec in stored.items():
                if name not in present:
                    raise DatasetError(f"{where} has no column {name}, which info.json lists. Fetch the file again.")
                # Names may contain dots, and a dotted name also selects longer ones: keep exactly this column.
                chunks = file.read(columns=[name]).column(name).chunks
                columns[name] = _one_array([bring_to_spec(chunk, spec, where) for chunk in chunks], spec)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{where} cannot be read ({error}). It is truncated or not parquet: fetch it again."
        ) from error
    return pa.RecordBatch.from_pydict(columns)


def _one_array(arrays: list[pa.Array], spec: FeatureSpec) -> pa.Array:
    if arrays:
        return pa.concat_arrays(arrays)
    return pa.array([], pa.list_(pa.null()) if spec.is_language else pa.null())


def bring_to_spec(column: pa.Array, spec: FeatureSpec, where: str) -> pa.Array:
    """One column as info.json describes it, whatever arrow type the file chose.

    Numbers become fixed-size lists of the feature's dtype in C order (booleans as uint8, which numpy can view), images
    their encoded bytes. Language columns keep their types: there are several, and all are read the same way.
    """
    if isinstance(column.type, pa.BaseExtensionType):  # when `datasets` is imported, its array types are registered
        column = column.storage
    if spec.is_language:
        return column
    if spec.is_string:
        return _without_nulls(column.cast(pa.large_string()), spec, where)
    if spec.is_image:
        encoded = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
        return encoded.cast(pa.large_binary())  # a missing image is a missing frame: reported, or skipped, as one
    return _numbers(column, spec, where)


def _numbers(column: pa.Array, spec: FeatureSpec, where: str) -> pa.Array:
    # A scalar may be stored plainly or as a list of one.
    sides = spec.shape if spec.item_shape or _is_list(column.type) else ()
    values = _without_nulls(column, spec, where)
    for side in sides:
        if isinstance(values.type, pa.BaseExtensionType):
            values = values.storage
        values = _flatten(values, side, spec, where)
    dtype = spec.numpy_dtype
    try:
        if not (pa.types.is_primitive(values.type) and not pa.types.is_temporal(values.type)):
            raise pa.ArrowInvalid("it does not hold numbers")
        # Floats may lose digits on the way to what info.json promises; whole numbers may not change.
        values = values.cast(pa.from_numpy_dtype(dtype), safe=dtype.kind != "f")
    except pa.ArrowException as error:
        raise DatasetError(f"{where}: column {spec.name} is {column.type}, not {spec.dtype} ({error}).") from error
    if dtype.kind == "b":
        values = values.cast(pa.uint8())
    size = int(np.prod(spec.item_shape, dtype=np.int64))
    return pa.FixedSizeListArray.from_arrays(values, size) if spec.item_shape else values


def _flatten(lists: pa.Array, side: int, spec: FeatureSpec, where: str) -> pa.Array:
    if not _is_list(lists.type):
        raise DatasetError(f"{where}: column {spec.name} does not have the shape {list(spec.shape)} of info.json.")
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != side)
    if len(wrong):
        raise DatasetError(
            f"{where}: column {spec.name} holds a list of {int(lengths[wrong[0]])} where info.json has the shape "
            f"{list(spec.shape)}. Correct info.json, or write the dataset anew."
        )
    return _without_nulls(lists.flatten(), spec, where)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _without_nulls(column: pa.Array, spec: FeatureSpec, where: str) -> pa.Array:
    if column.null_count:
        raise DatasetError(
            f"{where}: column {spec.name} has {column.null_count} empty values. Every frame needs every feature: "
            "repair the recording, or remove the feature."
        )
    return column
