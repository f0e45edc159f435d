"""Reads an audit and proves it: each global batch whole, no gap, no repeat, across kills and resumes.

Rows of an attempt count up to the step where a later attempt began, because that step and all after it were trained
again, from the checkpoint before it, and what had been trained in between is in no weights that live on. Everything an
attempt owes up to there must be present: a checkpoint is committed after the rows before it. Only the newest attempt
may lack rows at its end, those its ranks had not written when it was killed (or have not written yet).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from lerobot_ray.core.errors import DatasetError, StreamError
from lerobot_ray.data.audit import ATTEMPT_FILE, AUDIT_DIR, SCHEMA, Attempt, attempt_folder, attempt_number
from lerobot_ray.data.bad_episodes import SkippingOrder
from lerobot_ray.data.episodes import Selection
from lerobot_ray.data.order import Order


@dataclass(frozen=True)
class Audit:
    """What the model was trained on, checked."""

    rows: pa.Table
    """The rows that count, in stream order: columns of `audit.SCHEMA`."""
    first_step: int
    end_step: int
    """Steps [first_step, end_step) are complete."""
    attempts: tuple[Attempt, ...]
    """Those with rows that count or may yet: attempts superseded from their first step on are left out."""
    unfinished_rows: int
    """Rows of the newest attempt from `end_step` on, not in `rows`: the other ranks' part is not written."""


def load_audit(output_dir: str | Path) -> Audit:
    """The audit of a run, or StreamError that says which step lacks what."""
    audit = Path(output_dir) / AUDIT_DIR
    attempts = _living(_attempts(audit))
    tables, unfinished_rows, end_step = [], 0, 0
    for attempt, following in zip(attempts, [*attempts[1:], None], strict=True):
        table = _rows(audit, attempt, until=following.first_step if following else None)
        full = _complete_steps(table, attempt)
        if following:
            _check_joint(attempt, full, following)
        kept = table.filter(pc.less(table["step"], attempt.first_step + full))
        _check_batches(kept, attempt, full)
        tables.append(kept)
        unfinished_rows, end_step = len(table) - len(kept), attempt.first_step + full
    return Audit(
        rows=pa.concat_tables(tables).sort_by("stream_index"),
        first_step=attempts[0].first_step,
        end_step=end_step,
        attempts=attempts,
        unfinished_rows=unfinished_rows,
    )


def compare_with_order(audit: Audit, order: Order, selection: Selection) -> None:
    """Raise StreamError unless the samples trained on are those the order puts at their stream indices."""
    q, episode, frame = (audit.rows[name].to_numpy() for name in ("stream_index", "episode", "frame"))
    planned = order.samples(q)
    wrong = np.flatnonzero(_differs(selection, planned, episode, frame))
    if len(wrong) and isinstance(order, SkippingOrder):
        # Before an episode was dropped on all ranks, whoever could not read it replaced its samples alone.
        dropped = [item.episode for item in order.dropped]
        for unreadable in [*([number] for number in dropped), dropped]:
            alone = order.replacements(q[wrong], unreadable)
            wrong = wrong[_differs(selection, alone, episode[wrong], frame[wrong])]
    if len(wrong):
        row = wrong[0]
        position, anchor = selection.locate(planned[row])
        raise StreamError(
            f"{len(wrong)} of {len(q)} samples are not those of the {order.name} order. The first is stream index "
            f"{q[row]}: episode {episode[row]}, frame {frame[row]} was trained on, the order has episode "
            f"{selection.episodes[position]}, frame {anchor - selection.first_row[position]}. Either the run used "
            "another order, seed or selection, or this is a bug."
        )


def _differs(selection: Selection, samples: np.ndarray, episode: np.ndarray, frame: np.ndarray) -> np.ndarray:
    position, rows = selection.locate(samples)
    return (selection.episodes[position] != episode) | (rows - selection.first_row[position] != frame)


def _attempts(audit: Path) -> list[Attempt]:
    found = []
    for folder in sorted(audit.glob("attempt-*"), key=attempt_number):
        try:
            found.append(Attempt(**json.loads((folder / ATTEMPT_FILE).read_text())))
        except FileNotFoundError:
            continue  # killed between claiming the number and saying where it begins: no rank had started
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{folder / ATTEMPT_FILE} cannot be read ({error}). The file was changed.") from error
    if not found:
        raise DatasetError(f"{audit} holds no audit. Give the output folder of a run that was trained with one.")
    return found


def _living(attempts: list[Attempt]) -> tuple[Attempt, ...]:
    """The attempts whose first step no later attempt began at or before."""
    living: list[Attempt] = []
    for attempt in attempts:
        living = [earlier for earlier in living if earlier.first_step < attempt.first_step]
        living.append(attempt)
    return tuple(living)


def _rows(audit: Path, attempt: Attempt, *, until: int | None) -> pa.Table:
    parts = sorted(str(part) for part in attempt_folder(audit, attempt.number).glob("rank-*.parquet"))
    table = ds.dataset(parts, schema=SCHEMA, format="parquet").to_table(
        filter=None if until is None else ds.field("step") < until
    )
    strange = table.filter(
        pc.or_(
            pc.not_equal(table["attempt"], attempt.number),
            pc.or_(pc.less(table["step"], attempt.first_step), pc.greater_equal(table["rank"], attempt.world_size)),
        )
    )
    if len(strange):
        raise StreamError(
            f"attempt {attempt.number} (step {attempt.first_step} on, {attempt.world_size} ranks) cannot have written "
            f"this row of its audit: {strange.slice(0, 1).to_pylist()[0]}. Files of several runs were mixed."
        )
    return table


def _complete_steps(table: pa.Table, attempt: Attempt) -> int:
    """How many steps every rank has written its whole share of. A rank that skipped some of a step is an error."""
    share = attempt.global_batch // attempt.world_size
    steps = table["step"].to_numpy() - attempt.first_step
    rank = table["rank"].to_numpy()
    complete = []
    for number in range(attempt.world_size):
        counts = np.bincount(steps[rank == number])
        short = np.flatnonzero(counts != share)
        if len(short) and (short[0] < len(counts) - 1 or counts[-1] > share):
            step = short[0]
            raise StreamError(
                f"attempt {attempt.number}, step {attempt.first_step + step}: rank {number} trained on {counts[step]} "
                f"samples, its share is {share}. A part of the audit is missing or was written twice."
            )
        complete.append(len(counts) - len(short))
    return min(complete)


def _check_joint(attempt: Attempt, full: int, following: Attempt) -> None:
    owed = following.first_step - attempt.first_step
    if full < owed:
        raise StreamError(
            f"attempt {following.number} resumed at step {following.first_step}, but attempt {attempt.number} has "
            f"complete rows only up to step {attempt.first_step + full}. Parts of its audit are missing."
        )
    ends = attempt.samples_seen + owed * attempt.global_batch
    if ends != following.samples_seen:
        kind = "skipped" if following.samples_seen > ends else "trained on again"
        raise StreamError(
            f"attempt {following.number} resumed step {following.first_step} at stream index {following.samples_seen}, "
            f"and the step before ended at {ends}: {abs(ends - following.samples_seen)} samples were {kind}."
        )


def _check_batches(table: pa.Table, attempt: Attempt, steps: int) -> None:
    """Every stream index of these steps exactly once, in its own step."""
    index = table["stream_index"].to_numpy() - attempt.samples_seen
    step = table["step"].to_numpy() - attempt.first_step
    astray = np.flatnonzero(index // attempt.global_batch != step)
    if len(astray):
        row = table.slice(astray[0], 1).to_pylist()[0]
        own_step = attempt.first_step + index[astray[0]] // attempt.global_batch
        raise StreamError(
            f"attempt {attempt.number}, step {row['step']}: rank {row['rank']} trained on stream index "
            f"{row['stream_index']}, which belongs to step {own_step}."
        )
    counts = np.bincount(index, minlength=steps * attempt.global_batch)
    missing, repeated = np.flatnonzero(counts == 0), np.flatnonzero(counts > 1)
    if len(missing) or len(repeated):
        place = min([*missing[:1], *repeated[:1]])
        raise StreamError(
            f"attempt {attempt.number}, step {attempt.first_step + place // attempt.global_batch}: stream index "
            f"{attempt.samples_seen + place} was trained on {counts[place]} times. In all, {len(missing)} stream "
            f"indices are missing and {len(repeated)} are repeated."
        )
