from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerobot_ray.data.depth import MAX_CODE, DepthCoding, depth_coding

CODES = np.arange(MAX_CODE + 1, dtype=np.uint16)
CODINGS = [DepthCoding(unit=unit, use_log=use_log) for unit in ("mm", "m") for use_log in (True, False)]


@pytest.mark.parametrize("coding", CODINGS, ids=str)
def test_every_code_survives_the_way_there_and_back(coding):
    distances = coding.decode(CODES)
    assert distances.dtype == np.float32
    np.testing.assert_array_equal(coding.encode(distances), CODES)
    assert (np.diff(distances) > 0).all()
    assert distances[0] == pytest.approx(0.01 * coding.scale, abs=1e-6 * coding.scale)
    assert distances[-1] == pytest.approx(10.0 * coding.scale, abs=1e-6 * coding.scale)


@pytest.mark.parametrize("coding", CODINGS, ids=str)
def test_a_distance_comes_back_within_half_a_code(coding):
    distances = np.linspace(0.01, 10.0, 9999) * coding.scale
    again = coding.decode(coding.encode(distances))
    width = np.diff(coding.decode(CODES), prepend=0, append=20 * coding.scale)
    codes = coding.encode(distances)
    assert (np.abs(again - distances) <= np.maximum(width[codes], width[codes + 1]) * 0.51).all()


def test_log_codes_are_finest_near_the_camera():
    steps = np.diff(DepthCoding(use_log=True).decode(CODES))
    assert steps[0] < 1.5 < 3 < steps[-1]  # millimetres
    np.testing.assert_allclose(np.diff(DepthCoding(use_log=False).decode(CODES)), 9990 / MAX_CODE, rtol=1e-2)


def test_out_of_range_takes_the_nearest_end():
    for coding in CODINGS:
        far_and_near = np.array([0.0, 0.005, 10.1, 65.0, np.inf, np.nan, -1.0]) * coding.scale
        np.testing.assert_array_equal(coding.encode(far_and_near), [0, 0, MAX_CODE, MAX_CODE, MAX_CODE, 0, 0])
        np.testing.assert_array_equal(coding.decode(np.array([5000, 65535])), coding.decode(np.array([4095, 4095])))


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1), st.booleans())
def test_whole_millimetres_take_the_table_and_agree_with_floats(millimetres, use_log):
    coding = DepthCoding(unit="mm", use_log=use_log)
    whole = np.array(millimetres, np.uint16)
    np.testing.assert_array_equal(coding.encode(whole), coding.encode(whole.astype(np.float64)))


def test_units_are_those_of_the_frames():
    metres = np.linspace(0, 12, 500)
    np.testing.assert_array_equal(DepthCoding(unit="m").encode(metres), DepthCoding(unit="mm").encode(metres * 1000))


@pytest.mark.parametrize(
    ("use_log", "millimetres", "digest", "codes"),
    [
        (True, [10, 11, 1377, 3385, 9996, 10000], "eb574b2edaa40150", [0, 0, 397, 755, 1630, 4095]),
        (False, [10, 12, 2450, 5006, 9998, 10000], "76f20253e653de82", [0, 0, 201, 406, 1021, 4095]),
    ],
)
def test_numbers_of_lerobot(use_log, millimetres, digest, codes):
    """What LeRobot 0.6.1 decodes every code to (rounded millimetres), and encodes a few distances to.

    Whoever changes these numbers changes what depth policies see on existing datasets. Encoding is in double precision
    here and single there: of the 65536 whole millimetres 6 get a neighbouring code.
    """
    coding = DepthCoding(use_log=use_log)
    decoded = np.rint(coding.metres_by_code() * np.float32(1000)).astype("<i4")
    assert decoded[[0, 1, 1000, 2048, 4094, 4095]].tolist() == millimetres
    assert hashlib.sha256(decoded.tobytes()).hexdigest()[:16] == digest
    assert coding.encode(np.array([0, 10, 500, 1000, 2500, 9999], np.uint16)).tolist() == codes


def test_what_info_json_says_is_read_back():
    coding = DepthCoding(unit="m", min_m=0.2, max_m=4.0, shift_m=1.0, use_log=False)
    assert depth_coding({"depth_unit": "m", **coding.describe()}) == coding
    assert depth_coding({}) == DepthCoding()
