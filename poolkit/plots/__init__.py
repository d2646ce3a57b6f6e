"""Figures: records in, Axes out.

    timeline, timeline_table             who held which connection, who waited, what never came back
    latency, throughput, latency_table   how long requests took, how many a second
    by_client                            who was served how often
    steps, cost, fit, break_even         what connecting costs, and when a pool has paid for that
    scaling, trips                       what more clients change, and more distance
    sweep, knee, counts                  how big a pool should be; its counters beside the server's
    panels                               several empty Axes, for figures that are compared
    alt                                  the same in words, for those who cannot see it

Each draws on a given `ax`, or else on a new figure in the style of `course.mplstyle`, and returns
the Axes. The data carries its own labels; colours mean the same everywhere.
"""

from .cost import break_even, cost, fit, steps
from .frame import CONTROL, ERROR, IDLE, IN_USE, INK, OPENING, STATES, WAITING, alt, panels
from .load import counts, knee, sweep
from .runs import by_client, latency, latency_table, throughput
from .timeline import timeline, timeline_table
from .versus import scaling, trips

__all__ = [
    "CONTROL",
    "ERROR",
    "IDLE",
    "INK",
    "IN_USE",
    "OPENING",
    "STATES",
    "WAITING",
    "alt",
    "break_even",
    "by_client",
    "cost",
    "counts",
    "fit",
    "knee",
    "latency",
    "latency_table",
    "panels",
    "scaling",
    "steps",
    "sweep",
    "throughput",
    "timeline",
    "timeline_table",
    "trips",
]
