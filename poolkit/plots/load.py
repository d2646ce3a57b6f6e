"""A pool under load: how many connections it should have, and what it looked like as it ran."""

import numpy as np
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .frame import IDLE, IN_USE, INK, WAITING, beside, blank, human, log_time, sheet, spread

ENOUGH = 0.95  # of the best throughput


def knee(table, x="max_size"):
    """Return the smallest size whose median throughput reaches 95 % of the best median.

    `table` has the columns `x` and per_s, one row per round.
    """
    middle = table.groupby(x)["per_s"].median()
    return middle.index[middle >= ENOUGH * middle.max()][0].item()


def sweep(table, ax=None, x="max_size", title=None):
    """Draw throughput and the 99th percentile of the time per request against the pool's size, in
    two panels that share their x axis. Returns the pair of Axes; `ax` takes such a pair.

    `table` has the columns `x` ("max_size", or "clients"), per_s and p99_ms, and one row per round;
    dots are rounds, the line joins their medians. The dotted line is the knee: the smallest size
    that reaches 95 % of the best throughput, as more than that buys almost nothing.
    """
    with sheet(ax, (8, 3.2), panels=2) as (left, right):
        left.set_title(title or f"Requests per second, by {x}")
        right.set_title("99 % of the requests took at most")
        if not len(table):
            return blank(left, "no runs", left.get_title(loc="left")), blank(right, "", "")
        sizes = sorted(table[x].unique())
        at = knee(table, x)
        seconds = table.assign(p99_s=table["p99_ms"] / 1000)
        for panel, column in ((left, "per_s"), (right, "p99_s")):
            middle = seconds.groupby(x)[column].median()
            panel.axvline(at, color=INK, linewidth=1, linestyle=":", label="knee")
            panel.plot(middle.index, middle, color=INK, label="median")
            panel.scatter(table[x], seconds[column], 20, color=INK, alpha=0.55, label="rounds")
            panel.set_xlabel(x)
            panel.grid(axis="y")
            _size_axis(panel, sizes)
        left.set_ylim(0, table["per_s"].max() * 1.12)
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        low, high = seconds["p99_s"].min(), seconds["p99_s"].max()
        if high > 10 * low > 0:
            log_time(right.yaxis, low / 1.4, high * 1.4)
        else:
            right.set_ylim(0, high * 1.12)
            right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: human(value)))
        _name_knee(left, x, at)
    return left, right


def counts(samples, ax=None, title=None):
    """Draw what the pool says of itself beside what the server says, over time. Returns the Axes.

    `samples` are (t_s, in_use, idle, waiting, server): the pool's own counters, and how many
    connections the server counts. In use and idle are stacked, so that their upper edge is what the
    pool holds; where the server's line leaves that edge, the two disagree.
    """
    samples = sorted(samples)
    title = title or "Connections: what the pool says, and what the server counts"
    with sheet(ax, (8, 3)) as ax:
        if not samples:
            return blank(ax, "no samples", title)
        t, in_use, idle, waiting, server = np.asarray(samples, dtype=float).T
        t = t - t[0]
        # The last sample holds for as long as the one before it did.
        end = t[-1] + (t[-1] - t[-2] if len(t) > 1 else 1.0)
        t, in_use, idle, waiting, server = (
            np.append(values, last)
            for values, last in (
                (t, end),
                *((values, values[-1]) for values in (in_use, idle, waiting, server)),
            )
        )
        held = in_use + idle
        style = dict(step="post", linewidth=0)
        ax.fill_between(t, in_use, color=IN_USE, label="in use", **style)
        ax.fill_between(t, held, in_use, color=IDLE, label="idle", **style)
        ax.step(t, server, where="post", color=INK, label="server's count")
        names = [(in_use[-1] / 2, "in use", IN_USE), (server[-1], "server's count", INK)]
        if idle.any():
            names.append(((in_use[-1] + held[-1]) / 2, "idle", INK))
        if waiting.any():
            ax.step(t, waiting, where="post", color=WAITING, label="waiting")
            names.append((waiting[-1], "waiting", WAITING))
        top = max(held.max(), server.max(), waiting.max(), 1) * 1.12
        ax.set(xlim=(0, end), ylim=(0, top), title=title, xlabel="time (s)")
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.grid(axis="y")
        places = spread([y for y, _, _ in names], top * 0.1, top)
        beside(ax, [(y, *name) for y, (_, *name) in zip(places, names, strict=True)])
    return ax


def _size_axis(ax, sizes):
    # Ticks at the sizes that were tried, and nowhere else; logarithmic if they double and double.
    if sizes[-1] >= 8 * sizes[0] > 0:
        ax.set_xscale("log", base=2)
        if len(sizes) > 10:
            sizes = sizes[:: -(-len(sizes) // 10)]
    ax.xaxis.set_major_locator(FixedLocator(sizes))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))


def _name_knee(ax, x, at):
    words = f"knee: {x}={at} is the\nsmallest with 95 %\nof the best"
    x0 = ax.transAxes.inverted().transform(ax.transData.transform((at, 0)))[0]
    # Below the curve is room: behind the knee, or before it if that is far to the right.
    side, gap = ("left", 6) if x0 < 0.5 else ("right", -6)
    halo = [withStroke(linewidth=3, foreground="white")]
    style = dict(fontsize=9, ha=side, va="bottom", path_effects=halo)
    ax.annotate(words, (at, 0.04), (gap, 0), ax.get_xaxis_transform(), "offset points", **style)
