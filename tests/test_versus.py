"""Figures of pooled beside unpooled, against clients and distance: what is drawn, never pixels."""

import matplotlib
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_hex

from poolkit.plots import CONTROL, IN_USE, OPENING, alt, cost, panels, scaling, trips
from poolkit.workload import Request, Run


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def made_run(label, clients, ms, requests=10, elapsed=1.0, error=None):
    each = Request("client-1", 5.0, 5.0, 5.0 + ms / 1000, error)
    return Run(label, clients, [each] * requests, [], elapsed)


RUNS = [
    made_run(label, clients, ms * clients, requests=requests * round_)
    for round_ in (1, 2, 3)
    for clients in (1, 4, 8)
    for label, ms, requests in (("unpooled", 8.0, 20), ("pooled", 0.5, 300))
]
# connect: 6 ms and four trips; lookup: 1 ms and three
AWAY = pd.DataFrame(
    [(rtt, 6 + 4 * rtt + round_, 1 + 3 * rtt) for round_ in (-1, 0, 1) for rtt in (0, 5, 10)],
    columns=["rtt_ms", "connect", "lookup"],
)


def line(ax, label):
    [found] = [line for line in ax.lines if line.get_label() == f"line: {label}"]
    return found


def dots(ax, label):
    [found] = [dots for dots in ax.collections if dots.get_label() == label]
    return found.get_offsets()


def words(ax):
    return [text.get_text() for text in ax.texts]


def test_scaling_joins_the_medians_of_runs_with_as_many_clients():
    left, right = scaling(RUNS)
    assert list(line(left, "pooled").get_xdata()) == [1, 4, 8]
    assert list(line(left, "pooled").get_ydata()) == [600, 600, 600]
    assert line(right, "unpooled").get_ydata() == pytest.approx([0.008, 0.032, 0.064])
    assert len(dots(left, "pooled")) == len(dots(right, "unpooled")) == 9


def test_scaling_names_its_lines_and_draws_the_control_in_grey():
    for ax in scaling(RUNS):
        assert words(ax) == ["unpooled", "pooled"]
        assert to_hex(line(ax, "unpooled").get_color()) == CONTROL.lower()
        assert to_hex(line(ax, "pooled").get_color()) == IN_USE.lower()


def test_scaling_keeps_names_apart_whose_lines_end_together():
    alike = [made_run(label, n, 1.0) for label in ("unpooled", "pooled") for n in (1, 2)]
    for ax in scaling(alike):
        (_, low), (_, high) = sorted(text.xy for text in ax.texts)
        assert high - low > 0.05


def test_scaling_leaves_out_runs_that_served_nobody():
    failed = made_run("unpooled", 8, 1.0, error=OSError())
    left, _ = scaling([*RUNS[:2], failed])
    assert list(line(left, "unpooled").get_xdata()) == [1]
    assert "no runs" in words(scaling([failed])[0])


def test_trips_says_how_many_round_trips_each_thing_takes():
    ax = trips(AWAY)
    assert words(ax) == ["connect:\nT = 6 ms + 4.0 · rtt", "lookup:\nT = 1 ms + 3.0 · rtt"]
    assert to_hex(line(ax, "connect").get_color()) == OPENING.lower()
    assert len(dots(ax, "lookup")) == len(AWAY)
    assert "4.0 · rtt" in alt(ax)


def test_both_draw_on_axes_that_they_are_given():
    axes = panels(1, 2)
    assert scaling(RUNS, ax=tuple(axes)) == tuple(axes)
    [ax] = panels()
    assert trips(AWAY, ax=ax, title="far") is ax
    assert ax.get_title(loc="left") == "far"


def test_the_lines_of_cost_stay_on_the_page_and_its_ticks_are_whole_queries():
    bent = pd.DataFrame(
        [(1, 30.0, 30.0), (5, 31.0, 200.0), (20, 90.0, 500.0)],
        columns=["queries", "pooled_ms", "unpooled_ms"],
    )
    ax = cost(bent)
    assert line(ax, "unpooled").get_ydata().max() < ax.get_ylim()[1]
    assert any("unpooled: T =" in text for text in words(ax))
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
