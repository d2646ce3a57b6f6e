"""Figures: what is drawn (bars, labels, colours, words), never pixels."""

import importlib
import sys
from functools import cache
from time import perf_counter

import matplotlib
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.text import Text

from poolkit import plots
from poolkit.recorder import Event
from poolkit.workload import Request, Run


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def events(*lines, pool="web"):
    """Write events as "ms kind client connection", a dash for no connection."""
    made = []
    for line in lines:
        ms, kind, client, conn = line.split()
        where = "app.py:12 in handle" if kind in ("checkout", "waiting", "refused") else None
        number = None if conn == "-" else int(conn)
        made.append(Event(1000 + float(ms) / 1000, kind, pool, client, number, where))
    return made


LEAK = events(
    "0 opening a 1",
    "6 opened a 1",
    "6 checkout a 1",
    "30 return a 1",
    "40 checkout b 1",
    "45 waiting c -",
    "95 timeout c -",
)


def busy(clients, turns, held=3.0, pool="web"):
    """Each client checks out its own connection `turns` times for `held` of 4 ms."""
    made = []
    for turn in range(turns):
        for client in range(clients):
            at = 1000 + turn * 0.004 + client * 1e-5
            who = pool, f"client-{client + 1}", client + 1
            made.append(Event(at, "checkout", *who, "app.py:12 in handle"))
            made.append(Event(at + held / 1000, "return", *who, None))
    return made


def made_run(label="web", clients=2, totals=(0.001,) * 10, failed=()):
    requests = [
        Request(f"client-{i % clients + 1}", 10.0 + i, 10.0 + i, 10.0 + i + total, None)
        for i, total in enumerate(totals)
    ]
    requests += [Request(client, 50.0, None, 50.5, TimeoutError()) for client in failed]
    return Run(label, clients, requests, [], 2.0)


def words(ax):
    return [t.get_text() for t in visible(ax)]


def visible(ax):
    return [t for t in ax.findobj(Text) if t.get_visible() and t.get_text().strip()]


def drawn(ax, label):
    found = [c for c in ax.collections if c.get_label() == label]
    return sum(len(c.get_paths()) for c in found)


def colour(ax, label):
    (found,) = [c for c in ax.collections if c.get_label() == label]
    return to_hex(found.get_facecolor()[0]).upper()


def bars(ax, label):
    """The (x0, x1) of each bar."""
    (found,) = [c for c in ax.collections if c.get_label() == label]
    return [(p.vertices[:, 0].min(), p.vertices[:, 0].max()) for p in found.get_paths()]


def assert_words_are_apart(ax):
    """No two words of a figure touch, and none is cut off at the figure's edge."""
    figure = ax.figure
    figure.draw_without_rendering()
    ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    low, high = sorted(ax.get_xlim())
    boxes = []
    for word in visible(ax):
        if word in ax.get_xticklabels() and not low <= word.get_position()[0] <= high:
            continue  # ticks outside of the limits are not shown
        box = word.get_window_extent()
        if word not in ticks:
            assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, word
            assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, word
        for other, name in boxes:
            assert not box.overlaps(other), (word.get_text(), name)
        boxes.append((box, word.get_text()))


# -- all figures ---------------------------------------------------------------------------------

STEPS = pd.DataFrame({"step": ["connect", "password", "one query"], "ms": [0.2, 4.0, 0.1]})
COSTS = pd.DataFrame(
    [(n, 9 + 0.1 * n, 6.0 * n) for n in (1, 5, 20) for _ in range(3)],
    columns=["queries", "pooled_ms", "unpooled_ms"],
)
SIZES = pd.DataFrame(
    [(1, 100.0, 40.0), (2, 190.0, 20.0), (4, 197.0, 18.0), (8, 200.0, 60.0)],
    columns=["max_size", "per_s", "p99_ms"],
)
SAMPLES = [(0.0, 1, 3, 0, 4), (0.5, 4, 0, 2, 6), (1.0, 2, 2, 0, 4)]
FIGURES = {
    "timeline": lambda ax=None: plots.timeline(LEAK, ax),
    "latency": lambda ax=None: plots.latency([made_run("unpooled"), made_run()], ax),
    "throughput": lambda ax=None: plots.throughput([made_run("unpooled"), made_run()], ax),
    "by_client": lambda ax=None: plots.by_client(made_run(failed=["client-2"]), ax),
    "steps": lambda ax=None: plots.steps(STEPS, ax),
    "cost": lambda ax=None: plots.cost(COSTS, ax),
    "counts": lambda ax=None: plots.counts(SAMPLES, ax),
}
figures = pytest.mark.parametrize("name", FIGURES)


@cache
def picture(name):
    before = dict(plt.rcParams)
    return FIGURES[name](), before, dict(plt.rcParams)


@figures
def test_a_figure_returns_the_axes_it_was_given(name):
    ax = plt.figure(figsize=(8, 3)).add_subplot()
    assert FIGURES[name](ax) is ax
    assert plt.get_fignums() == [ax.figure.number]


@figures
def test_a_figure_leaves_the_users_settings_alone(name):
    _, before, after = picture(name)
    assert before == after


@figures
def test_a_figure_has_a_title_no_legend_and_letters_of_nine_points_at_least(name):
    ax, *_ = picture(name)
    title = ax.get_title(loc="left")
    assert title[0].isupper() or title[0].isdigit()
    assert ax.get_legend() is None
    assert min(word.get_fontsize() for word in visible(ax)) >= 9


@pytest.mark.slow
@figures
def test_words_neither_touch_nor_leave_the_figure(name):
    ax, *_ = picture(name)
    assert_words_are_apart(ax)


@figures
def test_alt_tells_the_title_and_what_is_drawn(name):
    ax, *_ = picture(name)
    told = plots.alt(ax)
    assert told.startswith(ax.get_title(loc="left"))
    assert "drawn: " in told.lower()
    assert told.endswith(".") and "\n" not in told


@pytest.mark.slow
def test_panels_take_a_figure_each():
    one, two, *others = plots.panels(rows=2)
    assert not others and one.figure is two.figure
    plots.timeline(LEAK, one, title="max_size=1")
    plots.timeline(LEAK, two, title="max_size=2")
    assert [ax.get_title(loc="left") for ax in (one, two)] == ["max_size=1", "max_size=2"]
    assert not one.spines["top"].get_visible()


def test_importing_plots_changes_no_setting(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("poolkit.plots")]:
        monkeypatch.delitem(sys.modules, name)
    before = dict(plt.rcParams)
    importlib.import_module("poolkit.plots")
    assert dict(plt.rcParams) == before
    monkeypatch.setattr("poolkit.plots", plots)


def test_nothing_to_draw_is_said_calmly():
    empty = made_run(totals=())
    sizes = SIZES.iloc[:0]
    assert "no events" in words(plots.timeline([]))
    assert "no requests" in words(plots.latency([empty]))
    assert "no runs" in words(plots.throughput([]))
    assert "no steps" in words(plots.steps(STEPS.iloc[:0]))
    assert "no runs" in words(plots.sweep(sizes)[0])
    assert "no samples" in words(plots.counts([]))
    assert list(plots.timeline_table([]).columns)[0] == "connection"
    assert len(plots.latency_table([])) == 0


# -- the timeline --------------------------------------------------------------------------------


def test_a_checkout_is_a_bar_from_checkout_to_return():
    ax = plots.timeline(LEAK)
    ((start, end),) = bars(ax, "in use")
    assert start == pytest.approx(6) and end == pytest.approx(30, abs=0.5)
    assert colour(ax, "in use") == plots.IN_USE
    assert ax.get_xlabel() == "time since the first event (ms)"


def test_a_leak_runs_to_the_edge_and_names_its_line():
    ax = plots.timeline(LEAK)
    ((start, end),) = bars(ax, "not returned")
    assert start == pytest.approx(40)
    assert end == pytest.approx(ax.get_xlim()[1])
    assert colour(ax, "not returned") == plots.ERROR
    assert "not returned: app.py:12 in handle" in words(ax)
    assert "1 not returned" in ax.get_title(loc="left")


def test_a_leak_of_the_last_moment_still_gets_room_for_its_line():
    ax = plots.timeline(events("0 opened a 1", "99 checkout a 1", "100 waiting b -"))
    assert "not returned: app.py:12 in handle" in words(ax)
    assert_words_are_apart(ax)


def test_idle_and_opening_have_their_colours():
    ax = plots.timeline(LEAK)
    assert colour(ax, "idle") == plots.IDLE
    assert colour(ax, "opening") == plots.OPENING
    ((start, end),) = bars(ax, "opening")
    assert start == pytest.approx(0) and end == pytest.approx(6, abs=0.5)


def test_a_request_that_gave_up_is_hollow_and_crossed():
    ax = plots.timeline(LEAK)
    assert drawn(ax, "waited in vain") == 1 and drawn(ax, "waiting") == 0
    (hollow,) = [c for c in ax.collections if c.get_label() == "waited in vain"]
    assert to_hex(hollow.get_edgecolor()[0]).upper() == plots.WAITING
    (cross,) = [c for c in ax.collections if c.get_label() == "gave up"]
    assert cross.get_offsets()[0][0] == pytest.approx(95)
    assert "c gave up" in words(ax)


def test_a_request_that_got_its_connection_waits_in_orange():
    ax = plots.timeline(
        events(
            "0 opened a 1", "0 checkout a 1", "9 waiting b -", "50 return a 1", "50 checkout b 1"
        )
    )
    ((start, end),) = bars(ax, "waiting")
    assert start == pytest.approx(9) and end == pytest.approx(50, abs=0.5)
    assert colour(ax, "waiting") == plots.WAITING
    assert "waiting" in words(ax)


def test_each_refused_request_is_a_cross():
    refused = [f"{ms} refused c -" for ms in (10, 20, 30)]
    ax = plots.timeline(events("0 opened a 1", "0 checkout a 1", *refused, "40 return a 1"))
    (crosses,) = [c for c in ax.collections if c.get_label() == "refused"]
    assert [x for x, _ in crosses.get_offsets()] == pytest.approx([10, 20, 30])
    assert "refused" in words(ax) and "3 requests refused" in ax.get_title(loc="left")


def test_a_connection_that_was_not_opened_is_crossed():
    ax = plots.timeline(events("0 opening a 1", "20 failed a 1"))
    assert drawn(ax, "failed to open") == 1
    assert "1 failed to open" in ax.get_title(loc="left")
    assert drawn(ax, "idle") == 0


def test_a_lane_ends_where_its_connection_is_closed():
    ax = plots.timeline(events("0 opened a 1", "0 opened a 2", "50 closed a 1", "100 closed a 2"))
    assert [end for _, end in bars(ax, "idle")] == pytest.approx([50, 100], abs=0.5)


def test_a_connection_that_was_open_before_is_idle_from_the_start():
    ax = plots.timeline(events("0 opened a 1", "50 checkout a 2", "60 return a 2"))
    assert [start for start, _ in bars(ax, "idle")] == pytest.approx([0, 0])
    assert drawn(ax, "opening") == 0


def test_until_cuts_off_what_happened_later():
    ax = plots.timeline(LEAK, until=1000.020)
    assert drawn(ax, "in use") == 0 and drawn(ax, "not returned") == 1
    table = plots.timeline_table(LEAK, until=1000.020)
    assert table["held_ms"].tolist() == pytest.approx([14])
    assert table["returned"].tolist() == [False]


def test_lanes_are_labelled_and_pools_apart():
    two = busy(2, 3) + busy(1, 3, pool="reports")
    ax = plots.timeline(two)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["pool web", "connection 1", "connection 2", "pool reports", "connection 1"]
    assert_words_are_apart(ax)


def test_connections_opened_one_after_the_other_share_slots():
    lines = []
    for i in range(60):
        steps = ((0, "opening"), (3, "opened"), (3, "checkout"), (5, "return"), (6, "closed"))
        lines += [f"{10 * (i // 2) + ms} {kind} client-{i % 2 + 1} {i + 1}" for ms, kind in steps]
    ax = plots.timeline(events(*lines))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["slot 1", "slot 2"]
    assert "60 checkouts of 60 connections" in ax.get_title(loc="left")


def test_each_state_is_named_on_its_longest_bar_or_above_the_lanes():
    roomy = words(plots.timeline(events("0 opened a 1", "10 checkout a 1", "60 return a 1")))
    assert "in use by a" in roomy and "■" not in roomy
    tight = words(plots.timeline(busy(2, 200)))
    assert "■" in tight and any(word.startswith("in use") for word in tight)


@pytest.mark.slow
@pytest.mark.parametrize("clients, turns", [(1, 4), (20, 5), (60, 3), (4, 1000)])
def test_few_and_many_lanes_and_bars_keep_their_words_apart(clients, turns):
    assert_words_are_apart(plots.timeline(busy(clients, turns)))


@pytest.mark.slow
def test_too_many_bars_merge_into_the_share_of_the_time_in_use():
    ax = plots.timeline(busy(1, 4000, held=1.0))
    (shade,) = [c for c in ax.collections if c.get_label() == "in use, merged"]
    assert shade.get_facecolor()[:, 3].mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.slow
def test_a_hundred_thousand_events_take_seconds():
    many = busy(10, 5000)
    start = perf_counter()
    plots.timeline(many).figure.canvas.draw()
    assert len(many) == 100_000 and perf_counter() - start < 10


def test_the_table_says_what_the_timeline_shows():
    table = plots.timeline_table(LEAK)
    assert list(table.columns) == [
        "connection",
        "client",
        "start_s",
        "held_ms",
        "returned",
        "where",
    ]
    assert table["held_ms"].tolist() == pytest.approx([24, 55])
    assert table["returned"].tolist() == [True, False]
    assert table["start_s"].tolist() == pytest.approx([0.006, 0.040])
    assert set(plots.timeline_table(LEAK + busy(1, 1, pool="b"))["connection"]) == {"web 1", "b 1"}


# -- runs ----------------------------------------------------------------------------------------


def test_latency_has_a_dot_per_request_and_the_control_in_grey():
    ax = plots.latency([made_run("unpooled", totals=(0.05,) * 7), made_run(totals=(0.001,) * 9)])
    dots = [c for c in ax.collections if c.get_label() == "requests"]
    assert [len(c.get_offsets()) for c in dots] == [7, 9]
    assert [to_hex(c.get_facecolor()[0]).upper() for c in dots] == [plots.CONTROL, plots.IN_USE]
    assert ax.get_xscale() == "log"


def test_latency_writes_the_median_and_the_slowest_hundredth():
    ax = plots.latency(made_run(totals=[0.001] * 98 + [0.080] * 2))
    assert "median 1 ms" in [word.strip() for word in words(ax)]
    assert "99 % within 80 ms" in [word.strip() for word in words(ax)]


def test_latency_crosses_requests_that_failed():
    ax = plots.latency(made_run(failed=["client-1", "client-2"]))
    (crosses,) = [c for c in ax.collections if c.get_label() == "failed requests"]
    assert len(crosses.get_offsets()) == 2
    assert "web\n2 clients, 2 failed" in words(ax)


def test_latency_draws_a_sample_of_very_many_requests_with_the_slowest_in_it():
    totals = [0.001] * 20_000 + [0.9]
    ax = plots.latency(made_run(totals=totals))
    (dots,) = [c for c in ax.collections if c.get_label() == "requests"]
    assert len(dots.get_offsets()) == 3000
    assert dots.get_offsets()[:, 0].max() == pytest.approx(0.9)


@pytest.mark.parametrize("totals", [(0.0028,), (0.001, 0.0011), (0.0001, 2.0), (0.0, 0.0)])
def test_latency_ticks_read_as_people_say_times(totals):
    ax = plots.latency(made_run(totals=totals))
    low, high = ax.get_xlim()
    shown = [
        label.get_text() for label in ax.get_xticklabels() if low <= label.get_position()[0] <= high
    ]
    assert len(shown) >= 2
    assert all(text.endswith((" ms", " s")) for text in shown)


def test_the_latency_table_has_a_row_per_run():
    table = plots.latency_table([made_run("unpooled"), made_run(failed=["client-1"])])
    assert table["label"].tolist() == ["unpooled", "web"]
    assert table["requests"].tolist() == [10, 11] and table["errors"].tolist() == [0, 1]
    assert table["per_s"].tolist() == [5.0, 5.0]
    assert table["median_ms"].tolist() == pytest.approx([1, 1])


def test_throughput_has_a_bar_per_run_with_its_number():
    ax = plots.throughput([made_run("unpooled", totals=(0.1,) * 4), made_run()])
    assert [bar.get_width() for bar in ax.patches] == [2, 5]
    assert {"2/s", "5/s"} <= set(words(ax))


def test_clients_that_got_nothing_are_in_the_picture():
    run = made_run(clients=4, totals=())
    run.requests = made_run(clients=1).requests
    ax = plots.by_client(run)
    assert [bar.get_height() for bar in ax.patches] == [10, 0, 0, 0]
    assert "Jain's index 0.25" in ax.get_title(loc="left")


def test_requests_that_failed_stand_above_those_served():
    ax = plots.by_client(made_run(failed=["client-2"] * 3))
    assert "5 of 8" in words(ax)
    assert to_hex(ax.patches[-1].get_facecolor()).upper() == plots.ERROR


# -- cost ----------------------------------------------------------------------------------------


def test_each_step_begins_where_the_one_before_ended_and_the_control_at_zero():
    ax = plots.steps(STEPS)
    assert [bar.get_x() for bar in ax.patches] == pytest.approx([0, 0.2, 0])
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.2, 4.0, 0.1])
    assert to_hex(ax.patches[2].get_facecolor()).upper() == plots.CONTROL
    assert "4.2 ms" in ax.get_title(loc="left")


def test_several_rounds_of_a_step_give_a_median_and_dots():
    rounds = pd.DataFrame({"step": ["connect"] * 3, "ms": [1.0, 2.0, 9.0]})
    ax = plots.steps(rounds)
    assert [bar.get_width() for bar in ax.patches] == [2]
    assert [x for x, _ in ax.collections[0].get_offsets()] == [1, 2]
    assert ax.get_xlabel() == "time (ms); 1 of 3 rounds took longer than is shown"


def test_fit_finds_the_line():
    assert plots.fit([1, 2, 10], [3.5, 4.0, 8.0]) == pytest.approx((3, 0.5))


def test_fit_needs_two_numbers_of_queries():
    with pytest.raises(ValueError, match="two different numbers of queries, got \\[5\\]"):
        plots.fit([5, 5], [1.0, 2.0])


def test_cost_writes_both_lines_and_marks_where_they_cross():
    ax = plots.cost(COSTS)
    assert "unpooled: T = 0 ms + 6 ms · n" in words(ax)
    assert "pooled: T = 9 ms + 0.1 ms · n" in words(ax)
    (mark,) = [c for c in ax.collections if c.get_label() == "break-even"]
    assert mark.get_offsets()[0][0] == pytest.approx(9 / 5.9)
    assert "faster from 2 queries on" in ax.get_title(loc="left")


@pytest.mark.slow
@pytest.mark.parametrize(
    "pooled, unpooled, title",
    [
        ((1, 0.1), (2, 6), "pooled is faster from the first query on"),
        ((900, 0.1), (0, 6), "pooled would be faster from 153 queries on"),
        ((9000, 0.1), (0, 6), "the pool does not get ahead within 20 queries"),
        ((5, 6), (0, 6), "the pool does not get ahead within 20 queries"),
    ],
)
def test_cost_says_so_when_the_lines_do_not_cross_in_sight(pooled, unpooled, title):
    rows = [(n, pooled[0] + pooled[1] * n, unpooled[0] + unpooled[1] * n) for n in (1, 5, 20)]
    ax = plots.cost(pd.DataFrame(rows, columns=["queries", "pooled_ms", "unpooled_ms"]))
    assert title in ax.get_title(loc="left")
    assert drawn(ax, "break-even") == 0
    assert_words_are_apart(ax)


# -- load ----------------------------------------------------------------------------------------


def test_the_knee_is_the_smallest_size_with_95_percent_of_the_best():
    assert plots.knee(SIZES) == 2
    left, right = plots.sweep(SIZES)
    for panel in (left, right):
        (line,) = [line for line in panel.lines if line.get_label() == "knee"]
        assert line.get_xdata()[0] == 2
    assert any("max_size=2" in word and "95 %" in word for word in words(left))


def test_a_sweep_draws_each_round_in_two_panels_that_share_their_sizes():
    rounds = pd.concat([SIZES, SIZES * [1, 1.01, 1]])
    left, right = plots.sweep(rounds)
    for panel in (left, right):
        (dots,) = [c for c in panel.collections if c.get_label() == "rounds"]
        assert len(dots.get_offsets()) == 8
        assert [tick.get_text() for tick in panel.get_xticklabels()] == ["1", "2", "4", "8"]
    assert left.get_shared_x_axes().joined(left, right)
    assert left.get_title(loc="left") in plots.alt((left, right))


def test_a_sweep_may_be_over_clients_and_over_given_axes():
    pair = plt.figure().subplots(1, 2)
    left, right = plots.sweep(SIZES.rename(columns={"max_size": "clients"}), pair, x="clients")
    assert (left, right) == tuple(pair)
    assert left.get_xlabel() == "clients"


def test_counts_stacks_the_pools_numbers_under_the_servers_line():
    ax = plots.counts(SAMPLES)
    assert {"in use", "idle", "waiting", "server's count"} <= set(words(ax))
    (server,) = [line for line in ax.lines if line.get_label() == "server's count"]
    assert list(server.get_ydata()) == [4, 6, 4, 4]
    assert colour(ax, "in use") == plots.IN_USE and colour(ax, "idle") == plots.IDLE


def test_counts_does_not_name_what_there_was_none_of():
    assert {"idle", "waiting"}.isdisjoint(words(plots.counts([(0, 1, 0, 0, 1), (1, 2, 0, 0, 2)])))


# -- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0 ms"),
        (0.00012, "0.12 ms"),
        (0.0098, "9.8 ms"),
        (0.01, "10 ms"),
        (0.1234, "120 ms"),
        (0.9999, "1 s"),
        (1.5, "1.5 s"),
        (100.0, "100 s"),
        (-0.0012, "-1.2 ms"),
    ],
)
def test_times_are_written_as_people_say_them(seconds, text):
    from poolkit.plots.frame import human

    assert human(seconds) == text


def test_the_colours_are_those_of_the_course():
    assert plots.STATES == {
        "in use": "#1B4F8F",
        "idle": "#D5DAE0",
        "waiting": "#C25700",
        "opening": "#2C9C8F",
        "error": "#7A1046",
    }
