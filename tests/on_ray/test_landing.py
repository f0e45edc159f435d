"""Blocks are written into another process's memory: by one writer at a time, never over what somebody looks at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import astuple, replace

import numpy as np
import pytest

from lerobot_ray.core.errors import StreamError
from lerobot_ray.on_ray.framing import Landed, frame_block, has_landed, unframe_block
from lerobot_ray.on_ray.landing import Landing, LandingAddress, LandingPlaces

BYTES = 1 << 16
WRITER = """
import json, sys, time
from lerobot_ray.on_ray.landing import Landing, LandingAddress

node_id, pid, files, place_bytes = json.loads(sys.argv[1])
landing = Landing.reached(LandingAddress(node_id, pid, files, place_bytes), node_id="here")
if landing is None:
    print("unreachable")
    sys.exit()
for line in sys.stdin:
    place = landing.take()
    if place is not None:
        landing.memory(place)[:] = bytes([int(line)]) * place_bytes
        if int(line) != 99:  # that one is never done
            landing.hand_over(place, int(line))
    print(place, flush=True)
"""


@pytest.fixture
def places():
    places = LandingPlaces(2, BYTES, node_id="here")
    yield places
    places.close()


@contextlib.contextmanager
def writer(address: LandingAddress):
    """Another process, which writes a block full of each number it is told and says where."""
    command = [sys.executable, "-c", WRITER, json.dumps(astuple(address))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def write(number: int) -> str:
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        write.process = process
        yield write
        process.kill()


def test_what_another_process_writes_is_seen_until_nobody_looks(places):
    with writer(places.address) as write:
        assert [write(number) for number in (3, 4, 5)] == ["0", "1", "None"]
        first, second = places.view(0, 3), places.view(1, 4)
        part = second[10:20].view(np.int16)
        assert np.array_equal(np.unique(first), [3])
        assert not first.flags.writeable
        del first
        assert write(6) == "0"
        del second
        assert write(7) == "None"
        assert np.array_equal(np.unique(part), [4 * 257])
        del part
        assert write(8) == "1"
        assert np.array_equal(np.unique(places.view(0, 6)), [6])


def test_a_writer_that_is_killed_leaves_its_place_to_the_next(places):
    with writer(places.address) as write:
        assert [write(number) for number in (3, 99)] == ["0", "1"]
        with writer(places.address) as other:
            assert other(4) == "None"
            write.process.send_signal(signal.SIGKILL)
            write.process.wait()
            assert [other(number) for number in (5, 6)] == ["1", "None"]
    assert np.array_equal(np.unique(places.view(0, 3)), [3]), "what it had handed over is whole"


def test_another_block_than_the_one_announced_is_refused(places):
    landing = Landing(places.address)
    place = landing.take()
    with pytest.raises(StreamError, match="block 5"):
        places.view(place, 5)
    landing.hand_over(place, 4)
    with pytest.raises(StreamError, match="block 5"):
        places.view(place, 5)
    landing.give_back(place)
    assert landing.take() == place


def test_views_outlive_the_places(places):
    landing = Landing(places.address)
    landing.memory(landing.take())[:] = b"x" * BYTES
    landing.hand_over(0, 1)
    seen = places.view(0, 1)
    places.close()
    assert Landing.reached(places.address, node_id="here") is None
    del places, landing
    assert bytes(seen[:2]) == b"xx"


def test_only_on_its_node_and_only_the_very_memory(places, tmp_path):
    address = places.address
    assert Landing.reached(None, node_id="here") is None
    assert Landing.reached(address, node_id="elsewhere") is None
    assert Landing.reached(replace(address, pid=2**22 + 1), node_id="here") is None
    (fd, inode), *others = address.files
    assert Landing.reached(replace(address, files=((fd, inode + 1), *others)), node_id="here") is None
    with open(tmp_path / "a file of the user", "w+b") as file:  # a number that was used again
        files = ((fd, inode), (file.fileno(), os.fstat(file.fileno()).st_ino))
        assert Landing.reached(replace(address, files=files), node_id="here") is None
        assert Landing.reached(replace(address, files=files[:1]), node_id="here") is not None


def test_a_framed_block_says_where_its_arrays_lie(places):
    landing = Landing(places.address)
    place = landing.take()
    memory = landing.memory(place)
    frames = np.frombuffer(memory, np.uint8, 600, 64).reshape(2, 300)
    frames[:] = 7
    state = np.arange(4, dtype=np.float32)
    table = frame_block(5, {"frames": frames, "state": state}, Landed(place, memory))
    assert has_landed(table)
    assert table.nbytes < 200
    landing.hand_over(place, 5)
    number, columns = unframe_block(table, places)
    assert number == 5
    assert columns["frames"].shape == (2, 300)
    assert np.array_equal(np.unique(columns["frames"]), [7])
    assert np.array_equal(columns["state"], state)
    assert [landing.take(), landing.take()] == [1, None]
    del columns
    assert landing.take() == place
    assert not has_landed(frame_block(6, {"state": state}, Landed(place, memory)))
