"""stats.json against itself and against the range of the rows: can it be normalised with?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.core.layout import STATS_PATH
from lerobot_ray.core.types import EPISODE_INDEX, FRAME_INDEX, INDEX, TASK_INDEX, TIMESTAMP
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.info import read_json
from lerobot_ray.data.metadata import DatasetMetadata
from lerobot_ray.data.problems import Problem
from lerobot_ray.data.stats import QUANTILES, STATISTICS, has_stats
from lerobot_ray.data.validate_rows import RowsReport

RECOUNT = "Count them again: python -m lerobot_ray.dataset stats ROOT --write."
BOOKKEEPING = {TIMESTAMP, FRAME_INDEX, EPISODE_INDEX, INDEX, TASK_INDEX}
"""Never normalised, so never worth a complaint."""


def check_stats(metadata: DatasetMetadata, rows: Sequence[RowsReport]) -> Iterable[Problem]:
    """Problems of stats.json. `rows` has the ranges of the columns in each data file."""
    if not metadata.storage.exists(STATS_PATH):
        yield Problem(STATS_PATH, "is missing, and training with any normalisation needs it.", RECOUNT)
        return
    try:
        document = read_json(metadata.storage, STATS_PATH, metadata.repo_id)
    except LerobotRayError as error:
        yield Problem(STATS_PATH, str(error), RECOUNT)
        return
    for name, spec in metadata.features.items():
        if has_stats(spec) and name not in BOOKKEEPING:
            yield from _check_feature(spec, document.get(name), metadata, rows)


def _check_feature(
    spec: FeatureSpec, entry: Any, metadata: DatasetMetadata, rows: Sequence[RowsReport]
) -> Iterable[Problem]:
    if not isinstance(entry, dict):
        yield Problem(STATS_PATH, f"has no entry for {spec.name}.", RECOUNT)
        return
    shape = (spec.channels_first_shape[0], 1, 1) if spec.is_camera else (spec.shape[-1],)
    values: dict[str, np.ndarray] = {}
    for name in STATISTICS:
        if name not in entry:
            severity = "warning" if name in QUANTILES else "error"
            text = f"{spec.name} has no {name}" + (
                ", which QUANTILES normalisation needs." if name in QUANTILES else "."
            )
            yield Problem(STATS_PATH, text, RECOUNT, severity=severity)  # type: ignore[arg-type]
            continue
        try:
            array = np.asarray(entry[name], np.float64)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        if name != "count" and array.shape != shape:
            text = f"{spec.name} has a {name} of shape {list(array.shape)}; expected {list(shape)}."
            yield Problem(STATS_PATH, text, RECOUNT)
        elif not np.isfinite(array).all():
            yield Problem(STATS_PATH, f"{name} of {spec.name} is not a finite number.", RECOUNT)
        else:
            values[name] = array
    yield from _check_order(spec, values)
    if spec.is_numeric and {"min", "max", "count"} <= set(values):
        yield from _check_range(spec, values, metadata, rows)


def _check_order(spec: FeatureSpec, values: dict[str, np.ndarray]) -> Iterable[Problem]:
    # LeRobot's histograms widen the range by 1e-10, and its pooled quantiles need not be in order to the last digit.
    ladder = [name for name in ("min", *QUANTILES, "max") if name in values]
    for low, high in pairwise(ladder):
        if (values[low] > values[high] + 1e-6 * (1 + np.abs(values[high]))).any():
            yield Problem(STATS_PATH, f"{spec.name} has a {low} above its {high}.", RECOUNT)
    if "std" in values and (values["std"] < 0).any():
        yield Problem(STATS_PATH, f"{spec.name} has a negative std.", RECOUNT)


def _check_range(
    spec: FeatureSpec, values: dict[str, np.ndarray], metadata: DatasetMetadata, rows: Sequence[RowsReport]
) -> Iterable[Problem]:
    count = int(values["count"].ravel()[0])
    if count != metadata.total_frames:
        text = f"{spec.name} was counted over {count} frames; the dataset has {metadata.total_frames}."
        yield Problem(STATS_PATH, text, RECOUNT, severity="warning")
    parts = [part for part in rows if spec.name in part.low]
    if not parts:
        return
    low = np.min([part.low[spec.name] for part in parts], axis=0)
    high = np.max([part.high[spec.name] for part in parts], axis=0)
    slack = 1e-4 * (values["max"] - values["min"]) + 1e-6 * (1 + np.abs(values["max"]))
    outside = (low < values["min"] - slack) | (high > values["max"] + slack)
    if outside.any():
        place = int(np.argmax(outside))
        text = (
            f"{spec.name}[{place}] lies in [{values['min'][place]:.4g}, {values['max'][place]:.4g}] here, but in "
            f"[{low[place]:.4g}, {high[place]:.4g}] in the data."
        )
        yield Problem(STATS_PATH, text, RECOUNT)
