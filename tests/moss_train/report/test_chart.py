"""Charts: round ticks, averaged lines, valid SVG whatever the values."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from moss_train.report.chart import HEIGHT, LEFT, POINTS, WIDTH, Series, line_chart, stacked_chart, ticks
from moss_train.report.run_page import labels

numbers = st.floats(-1e9, 1e9) | st.sampled_from([math.nan, math.inf])
lines = st.lists(st.lists(numbers, min_size=1, max_size=30), min_size=1, max_size=5)


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6))
def test_ticks_lie_within_and_are_few(low: float, span: float) -> None:
    found = ticks(low, low + span)
    slack = 1e-6 * (abs(low) + span)
    assert 2 <= len(found) <= 7
    assert all(low - slack <= tick <= low + span + slack for tick in found)


@given(values=lines, log=st.booleans(), stacked=st.booleans())
def test_any_values_give_a_drawing_inside_its_frame(values: list[list[float]], log: bool, stacked: bool) -> None:
    series = [Series(f"<{i}>", range(len(line)), line, dots=True) for i, line in enumerate(values)]
    text = stacked_chart("t & u", series, marks=[1]) if stacked else line_chart("t & u", series, log=log, marks=[1])
    root = ElementTree.fromstring(text)
    assert root.attrib["aria-label"] == "t & u" and "nan" not in text and "inf" not in text
    for points in re.findall(r'points="([^"]+)"', text):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert LEFT - 0.1 <= x <= WIDTH and -0.1 <= y <= HEIGHT


def test_long_lines_are_averaged() -> None:
    points = Series("a", range(10 * POINTS), [float(i % 2) for i in range(10 * POINTS)]).points()
    assert len(points) == POINTS and all(value == 0.5 for _, value in points)
    assert Series("a", [1, 2, 3], [1.0, math.nan, 2.0]).points() == [(1, 1.0), (3, 2.0)]


def test_names_lose_what_they_share() -> None:
    assert labels(["grad_norm/head", "grad_norm/gates"]) == ["head", "gates"]
    assert labels(["train/loss", "eval/loss"]) == ["train/loss", "eval/loss"]
    assert labels(["time/phase/encode"]) == ["encode"]
