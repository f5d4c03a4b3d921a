import plotly.graph_objects as go
import pytest

from optnas.analysis.trials import End
from optnas.plots.theme import ENDS, GRID, INK, SERIES, style, transparent


def luminance(color: str) -> float:
    """Relative luminance by WCAG 2."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_words_are_legible_on_light_and_on_dark() -> None:
    assert contrast(INK, "#ffffff") > 4
    assert contrast(INK, "#111111") > 4


@pytest.mark.parametrize("color", SERIES)
def test_marks_are_visible_on_light_and_on_dark(color: str) -> None:
    assert contrast(color, "#ffffff") > 2
    assert contrast(color, "#111111") > 3


def test_ends_differ_in_shape_as_well_as_in_color() -> None:
    assert set(ENDS) == set(End)
    assert len({look["symbol"] for look in ENDS.values()}) == len(ENDS)
    assert len({look["color"] for look in ENDS.values()}) == len(ENDS)


def test_style_leaves_the_page_visible() -> None:
    figure = style(go.Figure(), x="step", y="loss")
    assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.width is None  # as wide as its container
    assert figure.layout.xaxis.gridcolor == GRID
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("step", "loss")


def test_transparent() -> None:
    assert transparent("#0072b2", 0.5) == "rgba(0, 114, 178, 0.5)"


def test_a_long_title_of_an_axis_is_shortened_and_no_markup() -> None:
    title = style(go.Figure(), y="<b>" + "x" * 90).layout.yaxis.title.text
    assert title == "&lt;b&gt;" + "x" * 16 + "…" + "x" * 20
