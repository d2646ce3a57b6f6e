"""The checkout timeline: one lane per connection, a bar per checkout, and below them who waits.

connection 1  ███ client-1 ███░░░░░███ client-3 ██████░░░░░
connection 2  ▒▒██ not returned: app.py:12 in handle ██████
     waiting     ▬▬▬▬▬▬▬▬▬▬▬▬▬▬     ▭▭▭▭▭▭▭▭▭▭▭▭× gave up
"""

from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

from ..recorder import checkouts
from .frame import ERROR, IDLE, IN_USE, INK, OPENING, WAITING, Words, blank, plural, sheet
from .lanes import Lanes

BAR = 0.78  # of a lane's height
NARROW = 24  # pixels: no client's name is tried on less
CROSS = 5.5  # points
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
        _draw_connections(ax, lanes, words)
        _draw_queue(ax, lanes, words)
        unnamed = _write(lanes, words)
        if unnamed:
            _write_key(ax, unnamed)
        ax.set_title(title or _title(lanes, words), pad=24 if unnamed else None)
    return ax


def timeline_table(events, until=None):
    """List the checkouts as a pandas DataFrame, the timeline's twin: connection, client, start_s
    (since the first event), held_ms, returned, where. A connection is named "web 1" if several
    pools are recorded. What was not returned counts as held until the last event (or `until`)."""
    import pandas as pd

    events = _sorted(events, until)
    several = len({event.pool for event in events}) > 1
    last = events[-1].at if events and until is None else until
    rows = []
    for out in checkouts(events):
        end = last if out.end is None else out.end
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


def _title(lanes, words):
    title = f"Who holds which connection: {lanes.said()}"
    fits = words.width(title, fontsize=plt.rcParams["axes.titlesize"]) < words.page.width
    return title if fits else lanes.said()


def _make_room_for_leaks(ax, lanes, words):
    # What did not come back has no end, so the axis may run on until its line of code
    # can be written on it; but half of the width stays for what was recorded.
    if not lanes.leaks or words.page.height / lanes.bottom < words.line:
        return
    for out in lanes.leaks:
        share = min(0.5, (words.width(_not_returned(out)) + 16) / words.page.width)
        lanes.edge = max(lanes.edge, lanes.x(out.start) / (1 - share))
    ax.set_xlim(0, lanes.edge)


def _not_returned(out):
    return f"not returned: {out.where or out.client}"


def _draw_connections(ax, lanes, words):
    x, y = lanes.x, lanes.y
    open_for = [(x(c.opened), x(c.ended), y(c)) for c in lanes.lives if c.opened is not None]
    opening = [(x(c.born), x(c.opened or c.ended), y(c)) for c in lanes.lives if c.was_opened]
    back = [(x(out.start), x(out.end), y(out)) for out in lanes.checkouts if out.end is not None]
    gone = [(x(out.start), lanes.edge, y(out)) for out in lanes.leaks]
    failed = [(x(c.ended), y(c)) for c in lanes.lives if c.failed]

    _bars(ax, words, "idle", IDLE, open_for, BAR)
    _bars(ax, words, "opening", OPENING, opening, BAR)
    _bars(ax, words, "in use", IN_USE, back, BAR)
    _bars(ax, words, "not returned", ERROR, gone, BAR)
    _crosses(ax, "failed to open", failed, CROSS)


def _draw_queue(ax, lanes, words):
    x, y, height = lanes.x, lanes.y, BAR * lanes.slim
    ended = {"checkout": [], "waiting": [], "timeout": []}
    for wait in lanes.waits:
        ended[wait.outcome].append((x(wait.start), x(wait.end), y(wait)))
    _bars(ax, words, "waiting", WAITING, ended["checkout"] + ended["waiting"], height)
    gave_up = [(end, lane) for _, end, lane in ended["timeout"]]
    # In points: a thin lane gets a thin outline and a small cross.
    thick = height * words.page.height / lanes.bottom * 72 / ax.figure.dpi
    hollow = dict(facecolor="white", edgecolor=WAITING, linewidth=min(1, thick / 5))
    _bars(ax, words, "waited in vain", WAITING, ended["timeout"], height, **hollow)
    _crosses(ax, "gave up", gave_up, min(CROSS, max(2, thick)))
    _crosses(ax, "refused", [(x(event.at), y(event)) for event in lanes.refused], CROSS)


def _bars(ax, words, label, colour, spans, height, **style):
    """Draw (x0, x1, y) bars as one collection, so that a hundred thousand take no time.

    Short bars are widened until they can be seen, and neighbours stand a pixel apart. Where bars
    are too many for that they merge: a pixel's shade is the share of its time that they cover.
    """
    if not spans:
        return
    x0, x1, y = np.asarray(spans, dtype=float).T
    style = {"facecolor": colour, "linewidth": 0, **style}
    if _crowded(spans, words):
        x0, x1, y, share = _merged(x0, x1, y, words)
        style["facecolor"] = [to_rgba(style["facecolor"], alpha) for alpha in share]
        label += ", merged"
    else:
        long = (x1 - x0 > 4 * words.pixel) & (x1 < words.ax.get_xlim()[1])
        apart = np.where(long, words.pixel, 0)
        x1 = np.maximum(x1 - apart, x0 + 1.5 * words.pixel)
    low, high = y - height / 2, y + height / 2
    corners = np.stack([x0, low, x1, low, x1, high, x0, high], axis=1).reshape(-1, 4, 2)
    ax.add_collection(PolyCollection(corners, label=label, **style), autolim=False)


def _crowded(spans, words):
    return len(spans) > words.page.width / 4 * len({span[2] for span in spans})


def _merged(x0, x1, y, words):
    """Turn the bars of each lane into one bar per pixel, and the share of it that they cover."""
    edges = np.linspace(0, words.ax.get_xlim()[1], int(words.page.width) + 1)
    parts = []
    for lane in np.unique(y):
        order = np.argsort(x0[y == lane])
        start, end = x0[y == lane][order], x1[y == lane][order]
        so_far = np.cumsum(end - start)
        moments = np.stack([start, end], axis=1).ravel()
        covered = np.stack([so_far - (end - start), so_far], axis=1).ravel()
        share = np.diff(np.interp(edges, moments, covered)) / np.diff(edges)
        parts.append(np.stack([edges[:-1], edges[1:], np.full(len(share), lane), share]))
    merged = np.concatenate(parts, axis=1)
    merged = merged[:, merged[3] > 0]
    merged[3] = np.clip(merged[3], 0.1, 1)  # the least is a tint that can be seen
    return merged


def _crosses(ax, label, places, size):
    if places:
        x, y = zip(*places, strict=True)
        style = dict(marker="x", s=size**2, color=ERROR, linewidth=1.6, clip_on=False, zorder=3)
        ax.scatter(x, y, label=label, **style)


def _write(lanes, words):
    """Write on the bars what there is room for: first what went wrong, then each state's name once,
    on its longest bar, then the clients. Returns (name, colour) of what found no room anywhere."""
    x, y = lanes.x, lanes.y
    lane_height = words.page.height / lanes.bottom
    unnamed = []

    def on(span, text, colour="white", height=lane_height):
        x0, x1, lane = span
        room = (x1 - x0) / words.pixel - (16 if colour == ERROR else 6)  # an × takes its own
        if height < words.line or room < NARROW:
            return None
        return words.put(x0 + 5 * words.pixel, lane, text, room, color=colour)

    written = [on((x(out.start), lanes.edge, y(out)), _not_returned(out)) for out in lanes.leaks]
    if not all(written):
        lines = Counter(out.where or out.client for out in lanes.leaks).most_common()
        more = f" and {plural(len(lines) - 1, 'other line')}" if len(lines) > 1 else ""
        unnamed.append((f"not returned: {lines[0][0]}{more}", ERROR))

    height = lane_height * lanes.slim
    for wait in lanes.waits if height >= words.line else ():
        span = x(wait.start), x(wait.end), y(wait)
        if wait.outcome == "timeout":
            on(span, f"{wait.client} gave up", ERROR, height) or on(span, "gave up", ERROR, height)
        else:
            on(span, wait.client, "white", height)

    held = [
        (x(out.start), x(out.end), y(out), out.client)
        for out in lanes.checkouts
        if out.end is not None
    ]
    held.sort(key=lambda bar: bar[0] - bar[1])
    if held and not on(held[0][:3], f"in use by {held[0][3]}"):
        shade = " (shade: share of the time)" if _crowded(held, words) else ""
        unnamed.append((f"in use{shade}", IN_USE))
    for *span, client in held:
        if span[1] - span[0] < NARROW * words.pixel:
            break
        on(span, client)

    opening = []
    for life in lanes.lives:
        span = x(life.born), x(life.opened or life.ended), y(life)
        if life.failed:
            on(span, "failed to open", INK) or on(span, "failed", INK)
        elif life.was_opened:
            opening.append(span)
    for name, spans, colour in (("idle", _gaps(lanes), IDLE), ("opening", opening, OPENING)):
        longest = max(spans, key=lambda span: span[1] - span[0], default=None)
        if longest and not on(longest, name, INK):
            unnamed.append((name, colour))
    return unnamed


def _gaps(lanes):
    """List the (x0, x1, y) in which a connection was idle."""
    since = {c[:2]: c.opened for c in lanes.lives if c.opened is not None}
    gaps = []
    for out in lanes.checkouts:
        start = since.pop(out[:2], None)
        if start is not None:
            gaps.append((lanes.x(start), lanes.x(out.start), lanes.y(out)))
        if out.end is not None:
            since[out[:2]] = out.end
    for life in lanes.lives:
        if life[:2] in since:
            gaps.append((lanes.x(since[life[:2]]), lanes.x(life.ended), lanes.y(life)))
    return [(x0, x1, y) for x0, x1, y in gaps if x1 > x0]


def _write_key(ax, names):
    """Write above the lanes what found no room on them, each name behind a patch of its colour."""
    words = []
    for name, colour in names:
        words.append(TextArea("■", textprops=dict(color=colour, fontsize=10)))
        words.append(TextArea(f"{name}   ", textprops=dict(fontsize=9)))
    row = HPacker(children=words, align="baseline", pad=0, sep=3)
    style = dict(
        bbox_to_anchor=(0, 1), bbox_transform=ax.transAxes, borderpad=0, pad=0.15, frameon=False
    )
    ax.add_artist(AnchoredOffsetbox("lower left", child=row, **style))
