"""What a connection costs: where its milliseconds go, and when a pool has paid for itself."""

import numpy as np

from .frame import CONTROL, IN_USE, INK, OPENING, Words, blank, human, sheet


def steps(table, ax=None, title=None, control="one query"):
    """Draw where the milliseconds of one connect go. Returns the Axes.

    `table` has the columns step and ms, in the order in which the steps happen; a step may have
    several rows (rounds), then its median is the bar and each round a dot. Each bar begins where
    the one before has ended. The step called `control`, one query on a connection that is open
    already, is no part of connecting: it is grey and begins at zero.
    """
    rounds = {step: part.to_numpy(float) for step, part in table.groupby("step", sort=False)["ms"]}
    with sheet(ax, (8, 1.0 + 0.34 * max(1, len(rounds)))) as ax:
        if not rounds:
            return blank(ax, "no steps", title or "Where the time goes")
        connecting = {step: np.median(ms) for step, ms in rounds.items() if step != control}
        total = sum(connecting.values())
        starts = dict(zip(connecting, np.cumsum([0, *connecting.values()]), strict=False))
        # One slow round would squeeze all the bars: what lies far out is told and not shown.
        ends = {step: starts.get(step, 0.0) + ms for step, ms in rounds.items()}
        middle = max(float(np.median(places)) for places in ends.values())
        shown = {step: places[places <= 1.8 * middle] for step, places in ends.items()}
        hidden = sum(len(ends[step]) - len(shown[step]) for step in ends)
        most = max(places.max() for places in shown.values() if len(places))
        for row, (step, ms) in enumerate(rounds.items()):
            start, width = starts.get(step, 0.0), max(0.0, float(np.median(ms)))
            colour = CONTROL if step == control else OPENING
            ax.barh(row, width, 0.7, left=start, color=colour, label=step)
            end = start + width
            if len(ms) > 1:
                dots = shown[step]
                ax.scatter(dots, [row] * len(dots), 9, color=INK, alpha=0.5, label="_rounds")
                end = max(end, dots.max(initial=0.0))
            ax.text(end, row, f"  {human(np.median(ms) / 1000)}", va="center")
        ax.set_yticks(range(len(rounds)), list(rounds))
        ax.set(ylim=(len(rounds) - 0.4, -0.6), xlim=(0, most * 1.18 or 1))
        beyond = f"; {hidden} of {len(table)} rounds took longer than is shown" if hidden else ""
        ax.set_xlabel(f"time (ms){beyond}")
        if control in rounds:
            ax.get_yticklabels()[list(rounds).index(control)].set_color(CONTROL)
        said = f"Opening one connection takes {human(total / 1000)}"
        if control in rounds:
            query = float(np.median(rounds[control]))
            said += f", {control} on an open one {human(query / 1000)}"
        ax.set_title(title or said)
    return ax


def fit(n, ms) -> tuple[float, float]:
    """Fit the line T = a + b·n through times `ms` for `n` queries and return (a, b) in ms: what is
    paid once, and what is paid for each query.

    Least squares, by numpy.polyfit of degree 1. Each point weighs as 1/T, since a long measurement
    strays by more milliseconds than a short one; without that the many queries alone would decide
    on `a`, and with it on the break-even. Give medians of several rounds. Raises ValueError for
    fewer than two different `n`.
    """
    if len(set(n)) < 2:
        raise ValueError(f"a line needs two different numbers of queries, got {sorted(set(n))}")
    ms = np.asarray(ms, dtype=float)
    b, a = np.polyfit(n, ms, 1, w=1 / np.maximum(ms, 1e-6))
    return float(a), float(b)


def cost(table, ax=None, title=None):
    """Draw the time that n queries take, pooled and not, with a fitted line T = a + b·n each.
    Returns the Axes.

    `table` has the columns queries (n), pooled_ms and unpooled_ms (the time of all n together), and
    one row per round. The lines go through the medians of the rounds (see `fit`). Where they
    cross is the break-even: from there on the pool has paid for itself.
    """
    middle = table.groupby("queries").median(numeric_only=True)
    n = middle.index.to_numpy(float)
    lines = {way: fit(n, middle[f"{way}_ms"]) for way in ("unpooled", "pooled")}
    cross = break_even(lines["pooled"], lines["unpooled"])
    most = float(n.max())
    with sheet(ax, (8, 3.6)) as ax:
        highest = float(table[["pooled_ms", "unpooled_ms"]].to_numpy().max())
        highest = max(highest, *(a + b * most for a, b in lines.values()))
        ax.set(xlim=(0, most * 1.04), ylim=(0, highest * 1.2))
        ax.set(xlabel="queries, one after the other", ylabel="time for all of them (ms)")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(axis="y")
        ax.set_title(title or f"Time for n queries: {_verdict(cross, most)}")
        words = Words(ax)
        for way, colour in (("unpooled", CONTROL), ("pooled", IN_USE)):
            a, b = lines[way]
            ax.plot([0, most], [a, a + b * most], color=colour, label=f"line: {way}")
            ax.scatter(table["queries"], table[f"{way}_ms"], 18, color=colour, alpha=0.5, label=way)
            _write_line(words, way, a, b, most, colour)
        if cross is not None and 1 < cross <= most:
            _mark(words, cross, lines["pooled"])
    return ax


def break_even(pooled, unpooled) -> float | None:
    """Return from how many queries on the pooled line (a, b) is below the unpooled one, or None if
    it never is. 0 means from the start."""
    (a, b), (c, d) = pooled, unpooled
    if b >= d * (1 - 1e-9):
        return None
    return max(0.0, (a - c) / (d - b))


def _verdict(cross, most):
    if cross is None or cross > 10 * most:
        return f"the pool does not get ahead within {most:,.0f} queries"
    if cross <= 1:
        return "pooled is faster from the first query on"
    if cross > most:
        return f"pooled would be faster from {int(np.ceil(cross - 1e-9)):,} queries on"
    return f"pooled is faster from {int(np.ceil(cross - 1e-9)):,} queries on"


def _mark(words, cross, line):
    # Above the crossing is room, as both lines climb to the right of it; where the names of the
    # lines are there already, a little higher or lower.
    ax = words.ax
    y, high = line[0] + line[1] * cross, ax.get_ylim()[1]
    style = dict(facecolors="white", edgecolors=INK, linewidths=1.5, zorder=3)
    ax.scatter(cross, y, 60, label="break-even", **style)
    at_left = cross < 0.35 * ax.get_xlim()[1]
    text = f"  break-even: {cross:.2g} queries  "
    for height in (0.7, 0.8, 0.9, 0.97, 0.6, 0.5, 0.4, 0.3):
        top = height * high
        style = dict(ha="left" if at_left else "right", va="top", fontsize=10)
        if top > y + 0.08 * high and words.put(cross, top, text, **style):
            ax.plot(
                [cross, cross], [y, top], color=INK, linewidth=1, linestyle=":", label="_leader"
            )
            return


def _write_line(words, way, a, b, most, colour):
    sign, plus = "−" if a < 0 else "", "−" if b < 0 else "+"
    text = f"{way}: T = {sign}{human(abs(a) / 1000)} {plus} {human(abs(b) / 1000)} · n"
    line = words.line / words.page.height * words.ax.get_ylim()[1]
    # Above its end; a line further up if the other one's words are there.
    for lift in (0.3, 1.5, 2.7):
        style = dict(ha="right", va="bottom", color=colour)
        if words.put(most * 0.97, a + b * most + lift * line, text, **style):
            return
