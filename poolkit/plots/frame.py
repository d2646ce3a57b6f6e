"""What all figures share: the colours and their meaning, the sheet they are drawn on, and words.

Sizes, fonts and frames are in `course.mplstyle`; nothing here or in a figure sets them again.
"""

from collections import Counter
from contextlib import contextmanager
from math import floor, log10
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

STYLE = Path(__file__).parents[1] / "course.mplstyle"

# One colour, one meaning: in figures, in widgets and in drawings. All five stay apart for colour
# blind eyes; in use, waiting and error are dark enough to be read as text on white.
IN_USE = "#1B4F8F"
IDLE = "#D5DAE0"
WAITING = "#C25700"
OPENING = "#2C9C8F"
ERROR = "#7A1046"
STATES = {
    "in use": IN_USE,
    "idle": IDLE,
    "waiting": WAITING,
    "opening": OPENING,
    "error": ERROR,
}

# What is no state of a connection is ink; the control of an experiment is grey.
INK = "#22272E"
CONTROL = "#6B747D"


@contextmanager
def sheet(ax=None, size=(8, 3), panels=1):
    """Lend an Axes in the course's style: the one given, or one on a new figure of `size` inches.

    With several `panels`, lend a tuple of Axes that stand side by side and share their x axis.
    """
    with _style():
        if ax is None:
            made = plt.figure(figsize=size).subplots(1, panels, sharex=True, squeeze=False)[0]
            ax = made[0] if panels == 1 else tuple(made)
        yield ax


def _style():
    # A notebook's backend is loaded with the first figure, and switches interactive mode on. Were
    # that to happen inside the style's block, its end would switch it off again, and the second
    # figure would not be shown.
    plt.draw_if_interactive()
    return plt.style.context(STYLE)


def panels(rows: int = 1, columns: int = 1, size=None):
    """Make a figure of several panels in the course's style, to be drawn on with `ax=`. Returns the
    Axes, row by row, in a list. `size` is in inches; without it a row is 2.4 inches high."""
    with _style():
        figure = plt.figure(figsize=size or (8, 2.4 * rows))
        return list(figure.subplots(rows, columns, squeeze=False).flat)


def blank(ax, words, title):
    """Say calmly that there is nothing to draw, and return the Axes."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, words, ha="center", va="center", color=CONTROL, transform=ax.transAxes)
    ax.set_title(title)
    return ax


def human(seconds: float) -> str:
    """Write a time in seconds as people say it, to two digits: "0.12 ms", "10 ms", "1.5 s"."""
    if abs(seconds) < 1e-7:
        return "0 ms"
    # Rounded first, so that 0.9999 s is "1 s" and not "1000 ms".
    seconds = float(f"{seconds:.1e}") if abs(seconds) < 100 else seconds
    value, unit = (seconds, "s") if abs(seconds) >= 1 else (seconds * 1000, "ms")
    digits = max(0, 1 - floor(log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"


def plural(n: int, noun: str) -> str:
    """Count things: "1 checkout", "2,000 checkouts"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def log_time(axis, low: float, high: float):
    """Make an axis of seconds logarithmic from `low` to `high`, or a little more, so that at least
    two ticks are in sight. Ticks are decades; where there are few, 2 and 5 as well."""
    steps = [digit * 10.0**power for power in range(-7, 6) for digit in (1, 2, 5)]
    low, high = max(step for step in steps if step <= low), min(s for s in steps if s >= high)
    decades = [step for step in steps[::3] if low <= step <= high]
    ticks = decades if len(decades) > 2 else [step for step in steps if low <= step <= high]
    which = axis.axis_name
    axis.axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda seconds, _: human(seconds)))
    axis.set_minor_locator(NullLocator())


class Words:
    """Writes on an Axes, and keeps every word inside it and clear of the others.

    To be made when the limits and tick labels are final, since it measures what they leave.
    """

    def __init__(self, ax):
        layout = ax.figure.get_layout_engine()
        if layout is not None:
            layout.execute(ax.figure)  # so that lengths are known
        self.ax = ax
        self.page = Bbox.from_extents(*ax.get_window_extent().extents)
        self.line = 12 / 72 * ax.figure.dpi  # how many pixels high a line of words is
        self._taken = []

    @property
    def pixel(self) -> float:
        """The length of one pixel along a linear x axis."""
        low, high = self.ax.get_xlim()
        return (high - low) / self.page.width

    def width(self, text: str, **style) -> float:
        """Measure how many pixels `text` is long."""
        probe = self.ax.text(0, 0, text, **style)
        try:
            return probe.get_window_extent().width
        finally:
            probe.remove()

    def put(self, x, y, text, room=None, **style):
        """Write `text` at x, y, unless it is longer than `room` pixels, leaves the Axes or touches
        a word that is there: then nothing is written. Returns the Text or None."""
        style = {"va": "center", "fontsize": 9, **style}
        word = self.ax.text(x, y, text, **style)
        box = word.get_window_extent()
        page, pad = self.page, 2
        fits = (
            (room is None or box.width + 2 * pad <= room)
            and (page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1)
            and (page.y0 - 3 <= box.y0 and box.y1 <= page.y1 + 3)
            and not any(box.overlaps(other) for other in self._taken)
        )
        if not fits:
            word.remove()
            return None
        self._taken.append(box.padded(pad))
        return word


def spread(places, gap, top):
    """Move numbers apart until each is `gap` from the next and none is above `top`, keeping their
    order. Returns a list."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for below, above in zip(order, order[1:], strict=False):
        moved[above] = max(moved[above], moved[below] + gap)
    limit = top
    for i in reversed(order):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - gap
    return moved


def beside(ax, names):
    """Write (y, name, colour) at the right end of what they name, outside the frame."""
    for y, name, colour in names:
        place = ax.get_yaxis_transform()
        ax.annotate(name, (1, y), (6, 0), place, "offset points", color=colour, va="center")


def alt(ax) -> str:
    """Describe a figure in words, for those who cannot see it: its title, its rows, what is drawn
    and how often, and what is written on it. Takes an Axes, or the pair that `sweep` returns."""
    if isinstance(ax, (tuple, list)):
        return " ".join(alt(one) for one in ax)
    counted = Counter()
    for artist in (*ax.collections, *ax.lines, *ax.containers):
        if not artist.get_label().startswith("_"):
            counted[artist.get_label()] += _count(artist)
    drawn = [
        label if n == 1 or "merged" in label else f"{n:,} {label}" for label, n in counted.items()
    ]
    rows = [tick.get_text().replace("\n", ", ") for tick in ax.get_yticklabels()]
    words = [text.get_text().replace("\n", " ").strip() for text in ax.texts]
    facts = [
        ("rows from the top: ", rows if any(row[:1].isalpha() for row in rows) else []),
        ("drawn: ", drawn),
        ("along x: ", [ax.get_xlabel()] if ax.axison and ax.get_xlabel() else []),
        ("written on it: ", list(dict.fromkeys(words))),
    ]
    said = "; ".join(name + _some(things) for name, things in facts if things)
    title = ax.get_title(loc="left")
    return f"{title}. {said[:1].upper()}{said[1:]}." if said else f"{title}."


def _some(things, most=6):
    more = f" and {len(things) - most:,} more" if len(things) > most else ""
    return ", ".join(things[:most]) + more


def _count(artist):
    if hasattr(artist, "get_offsets") and len(artist.get_offsets()) > 1:
        return len(artist.get_offsets())
    if hasattr(artist, "get_paths"):
        return len(artist.get_paths())
    return len(artist) if hasattr(artist, "__len__") else 1
