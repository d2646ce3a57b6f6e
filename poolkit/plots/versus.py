"""What pooling saves, against what is not the same everywhere: how many clients, how far away."""

import numpy as np
from matplotlib.ticker import FuncFormatter

from .cost import fit
from .frame import CONTROL, IN_USE, INK, OPENING, blank, human, log_time, sheet, spread


def scaling(runs, ax=None, title=None):
    """Draw how Runs fare as there are more clients: requests served per second and the median time
    of a request, in two panels that share their x axis. Returns the pair of Axes; `ax` takes such a
    pair.

    A dot is a run; the lines join the medians of the runs of one label. The control, runs labelled
    "unpooled", is grey.
    """
    runs = [run for run in runs if run.served]
    with sheet(ax, (8, 3.2), panels=2) as (left, right):
        left.set_title(title or "Requests served per second")
        right.set_title("Time per request, median")
        if not runs:
            return blank(left, "no runs", left.get_title(loc="left")), blank(right, "", "")
        clients = sorted({run.clients for run in runs})
        rates = [run.throughput for run in runs]
        times = [run.latency_ms(0.5) / 1000 for run in runs]
        for panel in (left, right):
            panel.set(xlabel="clients", xlim=(0, clients[-1] * 1.04))
            panel.set_xticks(clients, [f"{n:,}" for n in clients])
            panel.grid(axis="y")
        left.set_ylim(0, max(rates) * 1.12)
        left.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.0f}"))
        log_time(right.yaxis, min(times) / 1.2, max(times) * 1.2)
        for panel, values in ((left, rates), (right, times)):
            names = []
            for label in dict.fromkeys(run.label for run in runs):
                own = [
                    (r.clients, v) for r, v in zip(runs, values, strict=True) if r.label == label
                ]
                colour = CONTROL if label == "unpooled" else IN_USE
                at = sorted({n for n, _ in own})
                middle = [np.median([value for n, value in own if n == at_n]) for at_n in at]
                panel.scatter(*zip(*own, strict=True), 20, color=colour, alpha=0.55, label=label)
                panel.plot(at, middle, color=colour, label=f"line: {label}")
                names.append((middle[-1], label, colour))
            _name_ends(panel, names)
    return left, right


def trips(table, ax=None, title=None):
    """Draw how long things take against the distance to the server, each with a fitted line
    T = a + b·rtt: b says how many round trips it is. Returns the Axes.

    `table` has the column rtt_ms, and of each thing a column of ms with its name; one row per
    round. The lines go through the medians of the rounds (see `fit`). What is named "connect" has
    the colour of opening a connection.
    """
    middle = table.groupby("rtt_ms").median()
    most = float(middle.index.max())
    with sheet(ax, (8, 3.4)) as ax:
        ax.set(xlim=(0, most * 1.02), ylim=(0, float(table[middle.columns].max(axis=None)) * 1.1))
        ax.set(xlabel="round trip to the server (ms)", ylabel="time (ms)")
        ax.set_xticks(list(middle.index))
        ax.grid(axis="y")
        ax.set_title(title or "Time against distance: the slope counts the round trips")
        names = []
        for thing in middle.columns:
            a, b = fit(middle.index, middle[thing])
            colour = OPENING if thing == "connect" else IN_USE
            ax.scatter(table["rtt_ms"], table[thing], 18, color=colour, alpha=0.5, label=thing)
            ax.plot([0, most], [a, a + b * most], color=colour, label=f"line: {thing}")
            sign, plus = "−" if a < 0 else "", "−" if b < 0 else "+"
            words = f"{thing}:\nT = {sign}{human(abs(a) / 1000)} {plus} {abs(b):.1f} · rtt"
            names.append((a + b * most, words, INK))
        _name_ends(ax, names)
    return ax


def _name_ends(ax, names):
    """Write (y, words, colour) at the right ends of lines, clear of each other."""
    place = ax.transAxes.inverted().transform
    ends = [place(ax.transData.transform((0, y)))[1] for y, _, _ in names]
    lines = 1 + max(words.count("\n") for _, words, _ in names)
    for y, (_, words, colour) in zip(spread(ends, 0.075 * lines, 1), names, strict=True):
        style = dict(xycoords="axes fraction", textcoords="offset points", va="center")
        ax.annotate(words, (1, y), (6, 0), color=colour, **style)
