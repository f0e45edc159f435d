"""A preview shows the right frames and curves, stands alone, and takes names as they come."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from lerobot_ray.core.errors import DatasetError
from lerobot_ray.data.features import FeatureSpec
from lerobot_ray.data.metadata import open_metadata
from lerobot_ray.data.preview import Curve, Panel, collect_preview, component_names, panels_of
from lerobot_ray.data.preview_page import PLOT_W, _line, _plot, number_text, page
from lerobot_ray.data.preview_sheet import DPI, WIDTH_IN, sheet
from tests.make_dataset import frame_code, make_dataset, state_of

FRONT = "observation.images.front"


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    root = make_dataset(
        tmp_path_factory.mktemp("preview") / "toy",
        files="many",
        image_cameras={"observation.image": (32, 48)},
        depth_cameras={"observation.images.depth": (64, 64)},
        depth_images={"observation.depth": (32, 48)},
        tasks=("pick <up> & hold", "place"),
        notes=True,
        matrix=True,
    )
    return open_metadata("tests/<toy>", root=root)


def test_it_shows_evenly_spaced_frames_of_the_wanted_episodes(metadata):
    preview = collect_preview(metadata, episodes=[2, 1], frames=5)
    assert [view.number for view in preview.episodes] == [2, 1]
    view = preview.episodes[1]
    assert view.frame_numbers.tolist() == [0, 6, 12, 18, 24]
    assert [frame_code(picture)[1] for picture in view.sheets[FRONT]] == [15 + n for n in (0, 6, 12, 18, 24)]
    assert [frame_code(picture)[1] for picture in view.sheets["observation.image"]] == [
        15 + n for n in (0, 6, 12, 18, 24)
    ]
    assert view.sheets["observation.images.depth"][0].shape == (64, 64, 3)
    assert (view.length, view.duration_s, view.tasks) == (25, 2.5, ["place"])


def test_episodes_are_spread_over_the_dataset_by_default(metadata):
    assert [view.number for view in collect_preview(metadata).episodes] == [0, 1, 2, 3]
    with pytest.raises(DatasetError, match="has episodes 0 to 3; there is no episode 4"):
        collect_preview(metadata, episodes=[1, 4])


def test_files_that_hold_several_episodes_give_the_right_rows(tmp_path):
    root = make_dataset(tmp_path / "toy")
    view = collect_preview(open_metadata("x", root=root), episodes=[2]).episodes[0]
    shoulder = view.panels[0].curves[0]
    assert shoulder.name == "shoulder.pos"
    np.testing.assert_allclose(shoulder.values, [state_of(row)[0] for row in range(40, 52)], rtol=1e-6)


def test_state_and_action_of_one_name_share_a_panel():
    features = {
        "observation.state": FeatureSpec("observation.state", "float32", (2,), ["a", "b"]),
        "action": FeatureSpec("action", "float32", (2,), {"motors": ["b", "c"]}),
        "next.reward": FeatureSpec("next.reward", "float32", (1,)),
    }
    panels = panels_of({name: np.zeros((3, spec.shape[0])) for name, spec in features.items()}, features)
    assert [(panel.title, [curve.feature for curve in panel.curves]) for panel in panels] == [
        ("a", ["observation.state"]),
        ("b", ["observation.state", "action"]),
        ("action · c", ["action"]),
        ("next.reward", ["next.reward"]),
    ]


@pytest.mark.parametrize(
    ("shape", "names", "expected"),
    [
        ((2,), ["x", "y"], ["x", "y"]),
        ((2,), {"motors": {"left": ["x"], "right": ["y"]}}, ["x", "y"]),
        ((2,), None, ["0", "1"]),
        ((2,), ["x", "y", "z"], ["0", "1"]),
        ((1,), None, [""]),
        ((2, 2), None, ["0", "1", "2", "3"]),
    ],
)
def test_components_are_named_whatever_info_json_has(shape, names, expected):
    assert component_names(FeatureSpec("f", "float32", shape, names)) == expected


VOID = {"meta", "img", "rect", "line", "circle", "br"}


class _Checker(HTMLParser):
    """Collects what a page refers to, and that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_well_formed(metadata):
    text = page(collect_preview(metadata))
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []
    assert "script" not in checker.tags
    assert checker.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in checker.sources)
    assert "url(" not in text
    assert "tests/&lt;toy&gt;" in text
    assert "pick &lt;up&gt; &amp; hold" in text
    picture = Image.open(io.BytesIO(base64.b64decode(checker.sources[1].partition(",")[2])))
    assert frame_code(np.asarray(picture)) == (0, metadata.episodes.from_index[0] + 2)


def test_the_picture_is_as_wide_as_it_says(metadata):
    picture = Image.open(io.BytesIO(sheet(collect_preview(metadata, episodes=[0]))))
    assert picture.format == "PNG"
    assert picture.width == WIDTH_IN * DPI


def test_a_dataset_without_cameras_statistics_or_names_can_be_shown(tmp_path):
    root = make_dataset(tmp_path / "toy", cameras={}, episodes=(1, 3), rewards=False, state_dim=7)
    (root / "meta/stats.json").unlink()
    preview = collect_preview(open_metadata("x", root=root))
    assert "Ranges" not in page(preview)
    assert sheet(preview).startswith(b"\x89PNG")


def test_curves_have_gaps_where_values_are_missing():
    values = np.array([0.0, 1.0, np.nan, 1.0, 0.0])
    drawn = _line(Curve("action", "x", values), -1, 2)
    assert drawn.count("M") == 2
    empty = _plot(Panel("x", (Curve("action", "x", np.full(3, np.nan)),)), 1.0)
    assert "nan" not in empty


def test_long_curves_keep_their_peaks():
    values = np.zeros(50_000)
    values[31_234] = 5.0
    drawn = _line(Curve("action", "x", values), 0, 5)
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.-]+)", drawn)]
    assert len(heights) <= 2 * PLOT_W
    assert min(heights) == 0.0  # the top of the plot


def test_numbers_in_labels():
    assert [number_text(value) for value in (1e-17, -1.23456, 1234.0, 0.5)] == ["0", "−1.23", "1.23e+03", "0.5"]
