"""Sliders around a function that draws: when it is called, and what is shown of what it does."""

import base64
import re
from html import unescape

import matplotlib
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from poolkit.plots import panels
from poolkit.sliders import explore

pytestmark = pytest.mark.slow


@pytest.fixture
def calls():
    """What `draw` was called with, in order."""
    return []


@pytest.fixture
def draw(calls):
    def draw(n=1, size=2):
        calls.append((n, size))
        if n == 13:
            raise ConnectionError("no <server>")
        [ax] = panels()
        ax.set_title(f"n is {n}", loc="left")
        return ax

    yield draw
    assert not plt.get_fignums(), "a figure was left open"


def shown(explorer):
    return unescape(re.search('alt="(.*?)"', explorer.picture.value)[1])


def test_the_figure_is_there_at_once_with_the_sliders_at_their_start(draw, calls):
    explorer = explore(draw, n=(1, 3, 20), size=(1, 2, 8))
    assert calls == [(3, 2)]
    assert shown(explorer) == "n is 3."
    image = base64.b64decode(re.search('base64,(.*?)"', explorer.picture.value)[1])
    assert image.startswith(b"\x89PNG")


def test_each_move_draws_once_with_the_values_of_all_sliders(draw, calls):
    explorer = explore(draw, n=(1, 3, 20), size=(1, 2, 8))
    explorer.sliders["n"].value = 7
    explorer.sliders["size"].value = 4
    assert calls == [(3, 2), (7, 2), (7, 4)]
    assert shown(explorer) == "n is 7."
    assert not any(slider.continuous_update for slider in explorer.sliders.values())


def test_an_argument_without_a_slider_keeps_its_default(draw, calls):
    explore(draw, size=(1, 5, 8))
    assert calls == [(1, 5)]


def test_a_start_outside_the_range_is_moved_into_it(draw, calls):
    explore(draw, n=(1, 4, 2), size=(3, 1, 8))
    assert calls == [(2, 3)]


def test_what_the_function_raises_stands_in_the_place_of_the_figure(draw):
    explorer = explore(draw, n=(1, 3, 20))
    explorer.sliders["n"].value = 13
    assert explorer.picture.value == "ConnectionError: no &lt;server&gt;"
    explorer.sliders["n"].value = 14
    assert shown(explorer) == "n is 14."


def test_what_it_raises_at_the_start_is_raised(draw):
    with pytest.raises(ConnectionError):
        explore(draw, n=(1, 13, 20))


def test_several_axes_of_one_figure_are_one_picture(calls):
    def pair():
        left, right = panels(1, 2)
        left.set_title("left", loc="left")
        right.set_title("right", loc="left")
        return left, right

    assert shown(explore(pair)) == "left. right."
    assert not plt.get_fignums()


def test_a_page_without_widgets_shows_the_picture(draw):
    explorer = explore(draw, n=(1, 3, 20))
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == repr(explorer) == "<Explorer draw(n=3)>"
    assert bundle["text/html"] == explorer.picture.value
    assert "application/vnd.jupyter.widget-view+json" in bundle
