"""What all figures share: the colours and their meaning, the sheet they are drawn on, and words.

Sizes, fonts and frames are in `course.mplstyle`; nothing here or in a figure sets them again.
"""

from contextlib import contextmanager
from math import floor, log10
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
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
    with plt.style.context(STYLE):
        if ax is None:
            made = plt.figure(figsize=size).subplots(1, panels, sharex=True, squeeze=False)[0]
            ax = made[0] if panels == 1 else tuple(made)
        yield ax


def blank(ax, words, title):
    """Say calmly that there is nothing to draw, and return the Axes."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, words, ha="center", va="center", color=CONTROL, transform=ax.transAxes)
    ax.set_title(title)
    return ax


def human(seconds: float) -> str:
    """Write a time in seconds as people say it, to two digits: "0.12 ms", "10 ms", "1.5 s"."""
    if seconds == 0:
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
    """Make an axis of seconds logarithmic from `low` to `high`, with human ticks.

    Decades get a tick; where fewer than two are in sight, 2 and 5 get one too.
    """
    ax = axis.axes
    set_scale, set_limits = (
        (ax.set_xscale, ax.set_xlim) if axis is ax.xaxis else (ax.set_yscale, ax.set_ylim)
    )
    set_scale("log")
    set_limits(low, high)
    decades = floor(log10(high)) - floor(log10(low))
    axis.set_major_locator(LogLocator(subs=(1,) if decades >= 2 else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda seconds, _: human(seconds)))
    axis.set_minor_locator(NullLocator())


class Words:
    """Writes on an Axes, and keeps every word inside it and clear of the others.

    To be made when the limits and tick labels are final, since it measures what they leave.
    """

    def __init__(self, ax):
        ax.figure.draw_without_rendering()  # lays the figure out, so that lengths are known
        self.ax = ax
        self.page = Bbox.from_extents(*ax.get_window_extent().extents)
        low, high = sorted(ax.get_xlim())
        self.pixel = (high - low) / self.page.width  # the length of one pixel along a linear x axis
        self._taken = []

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


def spread(places, gap):
    """Move numbers apart until each is `gap` from the next, keeping their order. Returns a list."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for below, above in zip(order, order[1:], strict=False):
        moved[above] = max(moved[above], moved[below] + gap)
    return moved


def alt(ax) -> str:
    """Describe a figure in a sentence or two, for those who cannot see it: its title, what is
    drawn and how often, and what is written on it. Takes an Axes, or the pair `sweep` returns."""
    if isinstance(ax, (tuple, list)):
        return " ".join(alt(one) for one in ax)
    drawn = [
        f"{_count(artist):,} {artist.get_label()}"
        for artist in (*ax.collections, *ax.lines, *ax.containers)
        if not artist.get_label().startswith("_") and _count(artist)
    ]
    written = [t.get_text() for t in ax.texts if t.get_text()]
    said = [ax.get_title(loc="left") or ax.get_title()]
    if drawn:
        said.append(f"Drawn: {', '.join(drawn)}")
    if ax.get_xlabel() and ax.axison:
        said.append(f"Along x: {ax.get_xlabel()}")
    if written:
        more = f" and {len(written) - 6:,} more" if len(written) > 6 else ""
        said.append(f"Written on it: {'; '.join(written[:6])}{more}")
    return ". ".join(said) + "."


def _count(artist):
    if hasattr(artist, "get_offsets") and len(artist.get_offsets()) > 1:
        return len(artist.get_offsets())
    if hasattr(artist, "get_paths"):
        return len(artist.get_paths())
    return len(artist) if hasattr(artist, "__len__") else 1


def texts(ax) -> list[Text]:
    """List every visible text of an Axes and of its frame that is not empty."""
    found = [*ax.findobj(Text)]
    return [t for t in found if t.get_visible() and t.get_text()]
