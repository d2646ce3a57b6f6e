"""Which lane of a timeline each thing stands on. Nothing is drawn here."""

from heapq import heappop, heappush
from typing import NamedTuple

from ..recorder import checkouts, waits
from .frame import CONTROL, ERROR, INK, WAITING, plural

OWN_LANE = 24  # with more connections in a pool, a new one takes the lane of a closed one
QUEUE = 8  # the queue is at most this many lanes high, however many wait
FOREVER = float("inf")


class Life(NamedTuple):
    """One connection, from the moment it was opened until it was closed."""

    pool: str
    conn: int
    born: float | None  # None: it was there before the first event
    opened: float | None  # None: not yet, or never
    ended: float | None  # None: open still
    failed: bool

    @property
    def was_opened(self):
        """Is its opening seen, from one moment to another? psycopg2's own pools do not tell."""
        return self.born is not None and self.born != self.opened


class Lanes:
    """Everything a timeline shows, and where: x in `unit` since the first event, y in lanes, from
    the top down."""

    def __init__(self, events, until=None):
        self._start = events[0].at
        span = (events[-1].at if until is None else until) - self._start or 0.001
        self._scale, self.unit = (1, "s") if span >= 1 else (1000, "ms")
        self.edge = span * self._scale  # the right edge: what has no end goes on to here

        self.lives = lives(events)
        self.checkouts = checkouts(events, until)
        self.leaks = [out for out in self.checkouts if out.end is None]
        self.waits = waits(events, until)
        self.refused = [event for event in events if event.kind == "refused"]

        self.labels = []  # (y, text, colour), from the top down
        self.bottom = 0.0  # how many lanes there are
        self.slim = 1.0  # how high a lane of the queue is
        self._lane_of = {}
        pools = list(dict.fromkeys(event.pool for event in events))
        for pool in pools:
            if len(pools) > 1:
                self._label(f"pool {pool}", CONTROL)
            self._place_connections(pool)
            self._place_waits(pool)
            self._place_refused(pool)

    def x(self, at):
        """Place a moment; None is a thing that has not ended."""
        return self.edge if at is None else (at - self._start) * self._scale

    def y(self, thing):
        """Place a connection's Life or Checkout, a Wait, or an Event that was refused."""
        own = getattr(thing, "conn", None) is None
        return self._lane_of[thing if own else thing[:2]]

    def said(self):
        """Say in a sentence what is to be seen."""
        lent = plural(len(self.checkouts), "checkout")
        said = [f"{lent} of {plural(len(self.lives), 'connection')}"]
        if self.leaks:
            said.append(f"{len(self.leaks):,} not returned")
        gave_up = sum(wait.outcome == "timeout" for wait in self.waits)
        if gave_up:
            said.append(f"{plural(gave_up, 'request')} gave up")
        if self.refused:
            said.append(f"{plural(len(self.refused), 'request')} refused")
        failed = sum(life.failed for life in self.lives)
        if failed:
            said.append(f"{failed:,} failed to open")
        return ", ".join(said)

    def _label(self, text, colour, height=1.0):
        self.labels.append((self.bottom + height / 2, text, colour))
        self.bottom += height

    def _place_connections(self, pool):
        here = [life for life in self.lives if life.pool == pool]
        rows = list(range(len(here)))
        if len(here) > OWN_LANE:
            rows = pack([(life.born or self._start, life.ended or FOREVER) for life in here])
        shared = len(set(rows)) < len(here)
        for life, row in zip(here, rows, strict=True):
            self._lane_of[life[:2]] = self.bottom + row + 0.5
        for row in range(len(set(rows))):
            self._label(f"slot {row + 1}" if shared else f"connection {here[row].conn}", INK)

    def _place_waits(self, pool):
        here = [wait for wait in self.waits if wait.pool == pool]
        if not here:
            return
        rows = pack([(wait.start, wait.end or FOREVER) for wait in here])
        height = max(rows) + 1
        slim = min(0.8, QUEUE / height)
        self.slim = min(self.slim, slim)
        self.bottom += 0.25
        for wait, row in zip(here, rows, strict=True):
            self._lane_of[wait] = self.bottom + (row + 0.5) * slim
        self._label("waiting", WAITING, height * slim)

    def _place_refused(self, pool):
        here = [event for event in self.refused if event.pool == pool]
        if here:
            self._lane_of.update(dict.fromkeys(here, self.bottom + 0.5))
            self._label("refused", ERROR)


def lives(events) -> list[Life]:
    """List the connections of events that are sorted by time, in the order of their opening."""
    seen = {}
    for event in events:
        if event.conn is None:
            continue
        key, at, kind = (event.pool, event.conn), event.at, event.kind
        if key not in seen:
            born = at if kind in ("opening", "opened") else None
            seen[key] = Life(*key, born, events[0].at if born is None else None, None, False)
        if kind == "opened":
            seen[key] = seen[key]._replace(opened=at)
        elif kind in ("failed", "closed"):
            seen[key] = seen[key]._replace(ended=at, failed=kind == "failed")
    return sorted(seen.values(), key=lambda life: (life.born or 0.0, life.conn))


def pack(spans) -> list[int]:
    """Give each (start, end), sorted by start, the first lane that is free by then."""
    busy, free, lanes = [], [], []
    for start, end in spans:
        while busy and busy[0][0] <= start:
            heappush(free, heappop(busy)[1])
        lane = heappop(free) if free else len(busy)
        heappush(busy, (end, lane))
        lanes.append(lane)
    return lanes
