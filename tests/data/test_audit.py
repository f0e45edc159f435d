"""An audit names every sample trained on, survives kills, and its check sees every gap and repeat."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_ray.core.errors import DatasetError, StorageError, StreamError
from lerobot_ray.data.audit import AuditWriter, begin_attempt
from lerobot_ray.data.audit_check import compare_with_order, load_audit
from lerobot_ray.data.bad_episodes import SkippingOrder
from lerobot_ray.data.episodes import select_episodes
from lerobot_ray.data.order import build_order
from lerobot_ray.data.plan import StreamPlan
from tests.data.tables import table_of

G = 12
SELECTION = select_episodes(table_of([15, 25, 12, 20]), episodes=[0, 1, 3], drop_n_last_frames=3)
ORDER = build_order("frames", num_samples=SELECTION.num_samples, seed=4, episode_lengths=SELECTION.lengths)


def train(output_dir, *, from_step, until_step, killed_after_rows=None, world_size=1, save_every=5, order=ORDER):
    """What a run does with the audit. Returns the step of its last checkpoint, where a resumed run begins.

    `killed_after_rows`: the processes vanish when rank 0 has trained so many rows in the last step, buffers and all.
    """
    attempt = begin_attempt(
        output_dir, first_step=from_step, samples_seen=from_step * G, global_batch=G, world_size=world_size
    )
    writers = [AuditWriter(output_dir, attempt, rank=rank, rows_per_part=7 + rank) for rank in range(world_size)]
    plans = [
        StreamPlan(order=order, global_batch=G, micro_batch=2, world_size=world_size, rank=rank, start=from_step * G)
        for rank in range(world_size)
    ]
    saved = from_step
    for step in range(from_step, until_step):
        for plan, writer in zip(plans, writers, strict=True):
            rows_left = killed_after_rows if step == until_step - 1 else None
            for number in plan.blocks_of_steps(step - from_step, step - from_step + 1):
                block = plan.block(number)
                if rows_left is not None:
                    rows_left -= 2
                    if rows_left < 0:
                        return saved
                position, rows = SELECTION.locate(block.sample_ids[0])
                writer.add(
                    step=step,
                    stream_index=block.stream_indices[0],
                    episode=SELECTION.episodes[position],
                    frame=rows - SELECTION.first_row[position],
                )
        if (step + 1) % save_every == 0:
            for writer in writers:
                writer.flush()
            saved = step + 1
    if killed_after_rows is None:
        for writer in writers:
            writer.close()
    return saved


def test_a_run_and_its_audit(tmp_path):
    train(tmp_path, from_step=0, until_step=13, world_size=3)
    audit = load_audit(tmp_path)
    assert (audit.first_step, audit.end_step, audit.unfinished_rows) == (0, 13, 0)
    assert audit.rows["stream_index"].to_pylist() == list(range(13 * G))
    assert audit.rows["step"].to_pylist() == np.repeat(np.arange(13), G).tolist()
    assert set(audit.rows["rank"].to_pylist()) == {0, 1, 2}
    compare_with_order(audit, ORDER, SELECTION)
    assert set(audit.rows["episode"].to_pylist()) == {0, 1, 3}


def test_it_is_one_dataset_for_any_parquet_reader(tmp_path):
    train(tmp_path, from_step=0, until_step=5, world_size=2)
    train(tmp_path, from_step=5, until_step=9, world_size=2)
    table = ds.dataset(tmp_path / "audit", format="parquet").to_table()
    assert len(table) == 9 * G
    assert table.column_names == ["attempt", "step", "rank", "stream_index", "episode", "frame"]


@settings(max_examples=40, deadline=None)
@given(
    lives=st.lists(
        st.tuples(st.integers(1, 14), st.one_of(st.none(), st.integers(0, 13)), st.sampled_from([1, 2, 3, 6])),
        min_size=1,
        max_size=5,
    )
)
def test_kills_and_resumes_leave_no_gap_and_no_repeat(lives):
    with tempfile.TemporaryDirectory() as folder:
        saved, last = 0, 0
        for steps, killed_after_rows, world_size in lives:
            began = saved
            saved = train(
                folder,
                from_step=saved,
                until_step=saved + steps,
                killed_after_rows=killed_after_rows,
                world_size=world_size,
            )
            last = began + steps
        audit = load_audit(folder)
        assert saved <= audit.end_step <= last
        if lives[-1][1] is None:
            assert audit.end_step == last
            assert audit.unfinished_rows == 0
        assert audit.rows["stream_index"].to_pylist() == list(range(audit.end_step * G))
        assert audit.rows["step"].to_pylist() == np.repeat(np.arange(audit.end_step), G).tolist()
        compare_with_order(audit, ORDER, SELECTION)


def test_steps_trained_again_count_once_and_lost_ones_not_at_all(tmp_path):
    """Checkpoint at 5; killed at 9; resumed at 5, killed at 7; resumed at 5, ended at 6: steps 6 to 8 are lost."""
    assert train(tmp_path, from_step=0, until_step=9) == 5
    assert train(tmp_path, from_step=5, until_step=7, world_size=2) == 5
    train(tmp_path, from_step=5, until_step=6)
    audit = load_audit(tmp_path)
    assert audit.end_step == 6
    assert [attempt.number for attempt in audit.attempts] == [1, 3]
    assert audit.rows["attempt"].to_pylist() == [1] * 5 * G + [3] * G


def test_an_attempt_without_rows(tmp_path):
    train(tmp_path, from_step=0, until_step=9)
    begin_attempt(tmp_path, first_step=5, samples_seen=5 * G, global_batch=G, world_size=4)
    assert load_audit(tmp_path).end_step == 5


def test_a_start_killed_before_it_said_where_it_begins(tmp_path):
    train(tmp_path, from_step=0, until_step=5)
    (tmp_path / "audit" / "attempt-0002").mkdir()
    assert load_audit(tmp_path).end_step == 5
    assert begin_attempt(tmp_path, first_step=5, samples_seen=60, global_batch=G, world_size=1).number == 3


def test_rows_the_other_ranks_have_not_written_are_unfinished(tmp_path):
    train(tmp_path, from_step=0, until_step=9, killed_after_rows=2, world_size=2)
    audit = load_audit(tmp_path)
    assert 5 <= audit.end_step < 9
    assert audit.unfinished_rows > 0


def test_another_global_batch_after_a_resume(tmp_path):
    assert train(tmp_path, from_step=0, until_step=7) == 5
    attempt = begin_attempt(tmp_path, first_step=5, samples_seen=5 * G, global_batch=4, world_size=2)
    for rank in range(2):
        with AuditWriter(tmp_path, attempt, rank=rank) as writer:
            for step in (5, 6):
                q = 5 * G + (step - 5) * 4 + rank * 2 + np.arange(2)
                writer.add(step=step, stream_index=q, episode=q, frame=q)
    audit = load_audit(tmp_path)
    assert audit.rows["stream_index"].to_pylist() == list(range(5 * G + 8))
    assert audit.end_step == 7


def rewrite(part: Path, change) -> None:
    table = pq.read_table(part)
    pq.write_table(change(table), part)


def set_value(table, row: int, column: str, value: int):
    field = table.schema.field(column)
    values = table[column].to_pylist()
    values[row] = value
    return table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda parts: parts[1].unlink(), "step 1: rank 0 trained on 2 samples, its share is 6"),
        (lambda parts: parts[-1].unlink(), None),  # the end of the newest attempt: not written yet, for all we know
        (lambda parts: rewrite(parts[0], lambda t: t.slice(1)), "step 0: rank 0 trained on 5 samples"),
        (
            lambda parts: (parts[0].parent / "rank-00000-part-000099.parquet").write_bytes(parts[0].read_bytes()),
            "step 0: rank 0 trained on 12 samples, its share is 6",
        ),
        (
            lambda parts: rewrite(parts[0], lambda t: set_value(t, 0, "stream_index", 1)),
            "step 0: stream index 0 was trained on 0 times. In all, 1 stream indices are missing and 1 are repeated",
        ),
        (
            lambda parts: rewrite(parts[0], lambda t: set_value(t, 0, "stream_index", 30)),
            "step 0: rank 0 trained on stream index 30, which belongs to step 2",
        ),
        (lambda parts: rewrite(parts[0], lambda t: set_value(t, 0, "rank", 9)), "Files of several runs were mixed"),
        (lambda parts: rewrite(parts[0], lambda t: set_value(t, 0, "attempt", 2)), "Files of several runs were mixed"),
    ],
)
def test_the_check_sees_what_is_wrong(tmp_path, spoil, says):
    train(tmp_path, from_step=0, until_step=8, world_size=2)
    parts = sorted((tmp_path / "audit" / "attempt-0001").glob("rank-00000-*.parquet"))
    assert len(parts) > 3
    spoil(parts)
    if says is None:
        assert load_audit(tmp_path).end_step < 8
        return
    with pytest.raises(StreamError) as error:
        load_audit(tmp_path)
    assert says in str(error.value)


def test_the_check_sees_a_wrong_resume(tmp_path):
    train(tmp_path, from_step=0, until_step=5)
    begin_attempt(tmp_path, first_step=5, samples_seen=5 * G - 4, global_batch=G, world_size=1)
    with pytest.raises(StreamError, match="4 samples were trained on again"):
        load_audit(tmp_path)
    begin_attempt(tmp_path, first_step=5, samples_seen=5 * G + 2, global_batch=G, world_size=1)
    with pytest.raises(StreamError, match="2 samples were skipped"):
        load_audit(tmp_path)
    begin_attempt(tmp_path / "b", first_step=0, samples_seen=0, global_batch=G, world_size=1)
    begin_attempt(tmp_path / "b", first_step=7, samples_seen=7 * G, global_batch=G, world_size=1)
    with pytest.raises(StreamError, match="resumed at step 7, but attempt 1 has complete rows only up to step 0"):
        load_audit(tmp_path / "b")


def test_the_check_sees_another_order(tmp_path):
    train(tmp_path, from_step=0, until_step=9)
    audit = load_audit(tmp_path)
    other = build_order("frames", num_samples=SELECTION.num_samples, seed=5, episode_lengths=SELECTION.lengths)
    with pytest.raises(StreamError, match="of 108 samples are not those of the frames order"):
        compare_with_order(audit, other, SELECTION)


def test_replacements_of_unreadable_episodes_are_expected(tmp_path):
    """Steps 0 to 4: each rank replaced what it could not read, alone. From step 5 on all had dropped the episode."""
    agreed = SkippingOrder(ORDER, SELECTION).without([3], from_index=5 * G)

    class Alone:  # what a stumbling rank reads before the agreed index
        storage_places = staticmethod(ORDER.storage_places)
        samples = staticmethod(lambda q: agreed.replacements(q, [3]))

    train(tmp_path, from_step=0, until_step=5, order=Alone())
    train(tmp_path, from_step=5, until_step=12, order=agreed)
    audit = load_audit(tmp_path)
    assert 3 not in audit.rows["episode"].to_pylist()
    compare_with_order(audit, agreed, SELECTION)
    with pytest.raises(StreamError, match="are not those"):
        compare_with_order(audit, ORDER, SELECTION)


def test_attempts_started_together_get_different_numbers(tmp_path):
    code = (
        "import sys; from lerobot_ray.data.audit import begin_attempt; "
        "print(*[begin_attempt(sys.argv[1], first_step=0, samples_seen=0, global_batch=1, world_size=1).number "
        "for _ in range(20)])"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in "abc"
    ]
    numbers = [int(word) for process in processes for word in process.communicate()[0].split()]
    assert sorted(numbers) == list(range(1, 61))


def test_a_killed_process_leaves_whole_parts_only(tmp_path):
    """SIGKILL while it writes part after part: what has a name can be read, and is a run of whole parts."""
    code = """
import sys, numpy as np
from lerobot_ray.data.audit import AuditWriter, begin_attempt
attempt = begin_attempt(sys.argv[1], first_step=0, samples_seen=0, global_batch=50, world_size=1)
writer = AuditWriter(sys.argv[1], attempt, rank=0, rows_per_part=500)
for step in range(10**6):
    q = step * 50 + np.arange(50)
    writer.add(step=step, stream_index=q, episode=q, frame=q)
    if step == 100:
        print("writing", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    audit = load_audit(tmp_path)
    assert audit.end_step >= 100
    assert len(audit.rows) == audit.end_step * 50
    assert audit.end_step % 10 == 0


def test_what_cannot_be_read_or_written(tmp_path):
    with pytest.raises(DatasetError, match="holds no audit"):
        load_audit(tmp_path)
    attempt = begin_attempt(tmp_path, first_step=0, samples_seen=0, global_batch=1, world_size=1)
    record = tmp_path / "audit" / "attempt-0001" / "_attempt.json"
    assert json.loads(record.read_text())["global_batch"] == 1
    record.write_text("{")
    with pytest.raises(DatasetError, match="cannot be read"):
        load_audit(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot write the audit"):
        begin_attempt(tmp_path / "file", first_step=0, samples_seen=0, global_batch=1, world_size=1)
    writer = AuditWriter(tmp_path / "file", attempt, rank=0)
    writer.add(step=0, stream_index=[0], episode=[0], frame=[0])
    with pytest.raises(StorageError, match="cannot write the audit"):
        writer.flush()
