"""The checkout timeline: one lane per connection, a bar per checkout, and below them who waits.

    connection 1  ███ client-1 ███░░░░░███ client-3 ██████░░░░░
    connection 2  ▒▒██ not returned: app.py:12 in handle ██████
         waiting     ▬▬▬▬▬▬▬▬▬▬▬▬▬▬     ▭▭▭▭▭▭▭▭▭▭▭▭× gave up
"""

from collections import Counter

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

from ..recorder import checkouts
from .frame import ERROR, IDLE, IN_USE, INK, OPENING, WAITING, Words, blank, sheet
from .lanes import Lanes

BAR = 0.78  # of a lane's height
LANE, FRAME, TALLEST = 0.26, 0.95, 8.0  # inches: a lane, all around the lanes, a figure at most


def timeline(events, ax=None, title=None, until=None):
    """Draw who held which connection, and who waited, from a recorder's `events`. Returns the Axes.

    One lane per connection: light while it is idle, a bar for each checkout, teal while it was
    opened. A checkout that never came back runs to the right edge in the colour of errors and
    names the line that took it. Below, one lane for each request that waits at the same time, with
    an × where it gave up; and one × for each request that was refused at once. Lanes of several
    pools are grouped by the pool's name. With more than 24 connections in a pool a lane is a slot:
    a new connection takes the lane of a closed one.

    Only what happened up to `until` (seconds, time.monotonic()) is drawn; what is out at that
    moment counts as not returned.
    """
    events = _sorted(events, until)
    if not events:
        with sheet(ax, (8, 1.4)) as ax:
            return blank(ax, "no events", title or "Who holds which connection")
    lanes = Lanes(events, until)
    with sheet(ax, (8, min(TALLEST, FRAME + LANE * lanes.bottom))) as ax:
        _frame(ax, lanes)
        words = Words(ax)
        _make_room_for_leaks(ax, lanes, words)
        bars = _draw_connections(ax, lanes, words) + _draw_queue(ax, lanes, words)
        unnamed = _name(bars, words)
        if unnamed:
            _key(ax, unnamed)
        ax.set_title(title or lanes.title(), pad=24 if unnamed else None)
    return ax


def timeline_table(events, until=None):
    """List the checkouts as a pandas DataFrame, the timeline's twin: connection, client, start_s
    (since the first event), held_ms, returned, where. A connection is named "web 1" if several
    pools are recorded. What was not returned counts as held until the last event (or `until`)."""
    import pandas as pd

    events = _sorted(events, until)
    several = len({event.pool for event in events}) > 1
    rows = []
    for out in checkouts(events):
        end = out.end or until or events[-1].at
        rows.append(
            (
                f"{out.pool} {out.conn}" if several else out.conn,
                out.client,
                out.start - events[0].at,
                (end - out.start) * 1000,
                out.end is not None,
                out.where,
            )
        )
    columns = ["connection", "client", "start_s", "held_ms", "returned", "where"]
    return pd.DataFrame(rows, columns=columns)


def _sorted(events, until):
    return sorted((e for e in events if until is None or e.at <= until), key=lambda e: e.at)


def _frame(ax, lanes):
    ax.set(xlim=(0, lanes.edge), ylim=(lanes.bottom, 0))
    ax.set_xlabel(f"time since the first event ({lanes.unit})")
    ax.spines["left"].set_visible(False)
    # Where lanes are thin, every second, third … connection keeps its label.
    gap = 0.17 * lanes.bottom / (ax.get_position().height * ax.figure.get_figheight())
    kept = []
    for label in lanes.labels:
        near = bool(kept) and label[0] - kept[-1][0] < gap
        if near and label[2] == INK:
            continue
        if near and kept[-1][2] == INK:
            kept.pop()
        kept.append(label)
    ax.set_yticks([y for y, _, _ in kept], [text for _, text, _ in kept])
    for tick, (_, _, colour) in zip(ax.get_yticklabels(), kept, strict=True):
        tick.set_color(colour)


class _Bar:
    """A bar that may carry words. `state` is what the reader must be told once; `says` is what
    stands on this one, in the colour `ink`; `room` is the free length behind it."""
