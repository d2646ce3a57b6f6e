"""The picture in the live panel: the slots, the queue, the server's own count, and how it goes.

A string of SVG, so that it can be redrawn many times a second without a flicker. Text and lines
take the colour of the page: dark on a light one, light on a dark one. The words, and their order,
are those of the pool's repr.

    ■ 4 of 4 in use   ▢ 0 idle   ■ 0 pending      ● 3 waiting      the server counts
    ▣ ▣ ▣ ▣                                   ←   ● ● ●            4 connections
    790          5.2 ms           ╱‾‾‾‾‾╲____/‾‾‾
    requests/s   p99 wait
"""

from html import escape
from itertools import groupby
from math import ceil, floor, isnan, log10

from .plots.frame import ERROR, IDLE, IN_USE, OPENING, WAITING, human

WIDTH = 720
POOL, QUEUE, SERVER = 0, 408, 590  # where each begins, from left to right
PER_ROW = 8  # slots, and waiting requests
FAINT = 0.7  # what captions keep of the text's colour: more than 4.5:1 on either page
FRAME = 'stroke="currentColor" stroke-opacity=".45"'  # keeps dark boxes apart from a dark page


def picture(samples, slots: int, seconds: float, counted: bool) -> str:
    """Draw the last of `samples` (live.Sample), and the throughput since the first, as HTML.

    There is room for `slots` boxes and for `seconds` of time, so that nothing moves when a number
    changes. `counted` says whether the server is asked for its own count.
    """
    now = samples[-1]
    below = 30 + 34 * max(2, ceil(slots / PER_ROW))  # where the numbers begin
    parts = [_words(now), _slots(now), _queue(now.stats.waiting)]
    if counted:
        parts.append(_server(now.server))
    parts += [_numbers(now, below + 62), _throughput(samples, seconds, below + 30)]
    # A page too narrow for it scrolls: smaller letters could not be read.
    return (
        '<div style="overflow-x:auto">'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 0 {WIDTH + 8} {below + 122}" '
        f'role="img" aria-label="{escape(in_words(now, counted))}" fill="currentColor" '
        f'style="display:block; width:100%; min-width:540px; max-width:{WIDTH + 8}px; '
        "color:var(--jp-ui-font-color0, currentColor); "
        'font-family:var(--jp-ui-font-family, sans-serif); font-variant-numeric:tabular-nums">'
        f"{''.join(parts)}</svg></div>"
    )


def in_words(sample, counted: bool) -> str:
    """Say what the picture shows."""
    words = f"{sample.stats}; {sample.leaked} leaked. {sample.throughput:,.0f} requests per second"
    if not isnan(sample.wait_ms):
        words += f", of which 99 % waited at most {_time(sample.wait_ms)}"
    if counted:
        words += f". The server counts {_count(sample.server)}"
    return words + "."


# -- the parts, from top to bottom ---------------------------------------------------------------


def _words(now):
    stats = now.stats
    shown = [
        (POOL, IN_USE, f"{stats.in_use} of {stats.max_size} in use"),
        (POOL + 222, IDLE, f"{stats.idle} idle"),
        (POOL + 290, OPENING, f"{stats.pending} pending"),
        (QUEUE, WAITING, f"{stats.waiting} waiting"),
    ]
    if now.leaked:
        shown.insert(1, (POOL + 126, ERROR, f"{now.leaked} leaked"))
    return "".join(
        f'<rect x="{x}" y="3" width="11" height="11" rx="{6 if colour is WAITING else 2}" '
        f'fill="{colour}" {FRAME}/>' + _text(x + 18, 13, words)
        for x, colour, words in shown
    )


def _slots(now):
    stats = now.stats
    states = (
        ["leaked"] * now.leaked
        + ["in use"] * (stats.in_use - now.leaked)
        + ["pending"] * stats.pending
        + ["idle"] * stats.idle
    )
    states += ["empty"] * (stats.max_size - len(states))
    return "".join(
        _slot(POOL + 46 * (i % PER_ROW), 28 + 34 * (i // PER_ROW), state, i >= stats.max_size)
        for i, state in enumerate(states)
    )


def _slot(x, y, state, surplus):
    fill = {"in use": IN_USE, "leaked": ERROR, "pending": OPENING, "idle": IDLE, "empty": "none"}
    dashes = ' stroke-dasharray="3 3"' if state == "empty" else ""
    box = (
        f'<rect x="{x}" y="{y}" width="40" height="26" rx="4" fill="{fill[state]}" {FRAME}'
        f"{dashes}/>"
    )
    if state == "leaked":  # not by colour alone
        box += f'<path d="M{x + 15} {y + 8}l10 10m0 -10l-10 10" stroke="#fff" stroke-width="2"/>'
    # Above max_size after a resize: closed on its return.
    return f'<g opacity=".45">{box}</g>' if surplus else box


def _queue(waiting):
    # The first in line stands next to the pool.
    places = 4 * PER_ROW
    dots = "".join(
        f'<circle cx="{QUEUE + 6 + 17 * (i % PER_ROW)}" cy="{35 + 17 * (i // PER_ROW)}" r="6"/>'
        for i in range(min(waiting, places))
    )
    more = _text(QUEUE + 17 * PER_ROW, 91, f"+{waiting - places}") if waiting > places else ""
    arrow = f'<path d="M{QUEUE - 12} 41h-18m5 -5l-5 5l5 5" fill="none" stroke="currentColor"/>'
    return f'<g fill="{WAITING}">{dots}</g>{more}<g opacity="{FAINT}">{arrow}</g>'


def _server(count):
    noun = "connection" if count == 1 else "connections"
    return (
        _text(SERVER, 13, "the server counts", opacity=FAINT)
        + _text(SERVER, 51, _count(count), size=26)
        + _text(SERVER, 71, noun, opacity=FAINT)
    )


def _numbers(now, y):
    return (
        _text(0, y, f"{now.throughput:,.0f}", size=26)
        + _text(0, y + 20, "requests/s", opacity=FAINT)
        + _text(98, y, _time(now.wait_ms), size=26)
        + _text(98, y + 20, "p99 wait", opacity=FAINT)
    )


def _throughput(samples, seconds, y):
    left, width, height = 216, 424, 62
    top = _round_up(max(sample.throughput for sample in samples))

    def place(sample):
        x = left + width * min(1, sample.at / seconds) if seconds else 0
        return f"{x:.1f}", f"{y + height * (1 - sample.throughput / top):.1f}"

    points = [place(sample) for sample in samples[:: ceil(len(samples) / 150)] + samples[-1:]]
    x_end, y_end = points[-1]
    rules = f"M{left} {y}h{width}M{left} {y + height}h{width}"
    return (
        f'<path d="{rules}" stroke="currentColor" opacity=".2"/>'
        f'<polyline points="{" ".join(map(",".join, points))}" fill="none" '
        'stroke="currentColor" stroke-width="1.8" stroke-linejoin="round"/>'
        f'<circle cx="{x_end}" cy="{y_end}" r="3"/>'
        + _text(left - 8, y - 7, "max_size", "end", 12, FAINT)
        + "".join(
            _text(place(sample)[0], y - 7, str(sample.stats.max_size), size=12, opacity=FAINT)
            for sample in _resized(samples)
        )
        + _text(left + width + 8, y + 4, f"{top:,.0f}/s", size=12, opacity=FAINT)
        + _text(left + width + 8, y + height + 4, "0", size=12, opacity=FAINT)
        + _text(left, y + height + 16, "0 s", size=12, opacity=FAINT)
        + _text(left + width, y + height + 16, f"{seconds:g} s", "end", 12, FAINT)
    )


def _resized(samples):
    # The samples from which on another max_size held, if for long enough to be seen in the curve.
    for _, held in groupby(samples, key=lambda sample: sample.stats.max_size):
        first, *others = held
        if first is samples[0] or (others and others[-1].at - first.at > 1.5):
            yield first


# -- words ---------------------------------------------------------------------------------------


def _text(x, y, words, anchor="start", size=13, opacity=1.0):
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" '
        f'opacity="{opacity}">{escape(words)}</text>'
    )


def _time(ms):
    return "–" if isnan(ms) else human(ms / 1000)


def _count(number):
    return "–" if number is None else str(number)


def _round_up(value):
    """Return the next of 10, 20, 50, 100, 200 …: an axis that seldom changes."""
    if value <= 10:
        return 10
    decade = 10 ** floor(log10(value))
    return next(step * decade for step in (1, 2, 5, 10) if value <= step * decade)
