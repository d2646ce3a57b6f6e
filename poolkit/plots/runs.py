"""What a Run says: how long its requests took, how many there were, and who was served."""

from collections import Counter

import numpy as np

from .frame import (
    CONTROL,
    ERROR,
    IN_USE,
    INK,
    Words,
    beside,
    blank,
    human,
    log_time,
    plural,
    sheet,
    spread,
)

SHORTEST = 1e-6  # seconds: a log scale has no zero
DOTS = 3000  # per row: more would only hide each other


def latency(runs, ax=None, title=None):
    """Draw a dot for each request of one or several Runs, one row per Run: the time from asking for
    a connection to having returned it, on a log scale. Returns the Axes.

    Ticks mark the median and the 99th percentile of the requests that were served; a request that
    failed is an ×. The control, a run labelled "unpooled", is grey. Of more than 3,000 requests in
    a row, 3,000 are drawn, taken evenly from the fastest to the slowest.
    """
    runs = _list(runs)
    runs = [run for run in runs if run.requests]
    title = title or "Time per request, from asking for a connection to having returned it"
    with sheet(ax, (8, 0.95 + 0.7 * max(1, len(runs)))) as ax:
        if not runs:
            return blank(ax, "no requests", title)
        ax.set_title(title)
        times = [request.end - request.start for run in runs for request in run.requests]
        fastest, slowest = max(min(times), SHORTEST), max(max(times), 2 * SHORTEST)
        # Room for the words on both sides of the dots.
        margin = (slowest / fastest) ** 0.2
        log_time(ax.xaxis, fastest / margin, slowest * margin)
        ax.set(ylim=(len(runs) - 0.4, -0.6))
        ax.set_yticks(range(len(runs)), [_name(run) for run in runs])
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
        for run, label in zip(runs, ax.get_yticklabels(), strict=True):
            label.set_color(_colour(run))
        words = Words(ax)
        for row, run in enumerate(runs):
            _strip(ax, words, row, run)
    return ax


def latency_table(runs):
    """List one or several Runs as a pandas DataFrame, the twin of `latency` and `throughput`:
    label, clients, requests, errors, per_s (requests served per second), median_ms, p99_ms,
    worst_ms (from asking to returned, of those served)."""
    import pandas as pd

    rows = [
        (
            run.label,
            run.clients,
            len(run.requests),
            len(run.errors),
            run.throughput,
            run.latency_ms(0.5),
            run.latency_ms(0.99),
            run.latency_ms(1.0),
        )
        for run in _list(runs)
    ]
    columns = "label clients requests errors per_s median_ms p99_ms worst_ms".split()
    return pd.DataFrame(rows, columns=columns)


def throughput(runs, ax=None, title=None):
    """Draw a bar per Run: requests served per second. The control, a run labelled "unpooled", is
    grey. Returns the Axes."""
    runs = _list(runs)
    title = title or "Requests served per second"
    with sheet(ax, (8, 0.8 + 0.36 * max(1, len(runs)))) as ax:
        if not runs:
            return blank(ax, "no runs", title)
        rates = [run.throughput for run in runs]
        bars = ax.barh(range(len(runs)), rates, 0.7, color=[_colour(run) for run in runs])
        bars.set_label("runs")
        ax.bar_label(bars, [f"{rate:,.0f}/s" for rate in rates], padding=4)
        ax.set_yticks(range(len(runs)), [_name(run) for run in runs])
        ax.set(ylim=(len(runs) - 0.4, -0.6), xlim=(0, max(rates) * 1.15 or 1))
        ax.xaxis.set_visible(False)
        ax.spines["bottom"].set_visible(False)
        ax.set_title(title)
    return ax


def by_client(run, ax=None, title=None):
    """Draw a bar per client of a Run: how many of its requests were served, and in the colour of
    errors above it how many failed. The title gives Jain's index, 1 for equal shares, 1/clients if
    one client has everything. Returns the Axes."""
    served = Counter(request.client for request in run.served)
    failed = Counter(request.client for request in run.requests if request.error is not None)
    names = {f"client-{i + 1}" for i in range(run.clients)} if run.clients else set()
    names = sorted(names | set(served) | set(failed), key=lambda name: (len(name), name))
    title = (
        title or f"Requests served per client: Jain's index {run.fairness:.2f} (1: equal shares)"
    )
    with sheet(ax, (8, 2.8)) as ax:
        if not names:
            return blank(ax, "no clients", title)
        ax.set_title(title)
        good = np.array([served[name] for name in names])
        bad = np.array([failed[name] for name in names])
        ax.bar(range(len(names)), good, 0.8, color=IN_USE, label="clients")
        if bad.any():
            ax.bar(
                range(len(names)), bad, 0.8, bottom=good, color=ERROR, label="clients that failed"
            )
            sides = spread([good[-1] / 2, good[-1] + bad[-1] / 2], 0.1 * max(good + bad), 1e9)
            beside(ax, zip(sides, ("served", "failed"), (IN_USE, ERROR), strict=True))
        ax.set(ylim=(0, max(1, *(good + bad)) * 1.12), xlim=(-0.7, len(names) - 0.3))
        inches = ax.get_position().width * ax.figure.get_figwidth()
        step = 1 + int(len(names) * max(len(name) for name in names) / (11 * inches))
        ax.set_xticks(range(0, len(names), step), names[::step])
        if len(names) <= 12:
            for x, (g, b) in enumerate(zip(good, bad, strict=True)):
                text = f"{g:,} of {g + b:,}" if b else f"{g:,}"
                ax.annotate(text, (x, g + b), (0, 2), textcoords="offset points", ha="center")
            ax.spines["left"].set_visible(False)
            ax.yaxis.set_visible(False)
        else:
            ax.yaxis.get_major_locator().set_params(integer=True)
            ax.grid(axis="y")
    return ax


def _list(runs):
    return list(runs) if isinstance(runs, (list, tuple)) or hasattr(runs, "__next__") else [runs]


def _colour(run):
    return CONTROL if run.label == "unpooled" else IN_USE


def _name(run):
    failed = f", {len(run.errors):,} failed" if run.errors else ""
    return f"{run.label}\n{plural(run.clients, 'client')}{failed}"


def _strip(ax, words, row, run):
    served = np.sort([r.end - r.start for r in run.served])
    failed = np.sort([r.end - r.start for r in run.requests if r.error is not None])
    style = dict(alpha=float(np.clip(80 / max(1, len(served)), 0.15, 0.7)))
    # A single dot must not hide behind its own median.
    style["zorder"] = 2.5 if len(served) < 30 else 1.5
    if len(served):
        dots = _thin(served)
        ax.scatter(dots, row + _heights(dots), 16, color=_colour(run), label="requests", **style)
    if len(failed):
        crosses = _thin(failed)
        style = dict(marker="x", s=22, color=ERROR, linewidths=1.2, label="failed requests")
        ax.scatter(crosses, row + _heights(crosses), **style)
    if not len(served):
        return
    median, p99 = run.latency_ms(0.5) / 1000, run.latency_ms(0.99) / 1000
    ax.vlines(median, row - 0.32, row + 0.28, color=INK, linewidth=2.6)
    ax.vlines(p99, row - 0.32, row + 0.28, color=INK, linewidth=1.2)
    above = row - 0.44
    words.put(median, above, f"median {human(median)} ", ha="right") or words.put(
        median, above, f"median {human(median)}", ha="left"
    )
    words.put(p99, above, f" 99 % within {human(p99)}", ha="left") or words.put(
        p99, above, f"99 % within {human(p99)} ", ha="right"
    )


def _thin(times):
    if len(times) <= DOTS:
        return np.maximum(times, SHORTEST)
    return np.maximum(times[np.linspace(0, len(times) - 1, DOTS).astype(int)], SHORTEST)


def _heights(dots):
    """Spread dots over a row, the same way every time."""
    return 0.26 * (np.random.default_rng(1).random(len(dots)) * 2 - 1)
