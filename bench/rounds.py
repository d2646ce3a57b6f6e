"""Rounds: the competitors take turns, so that a bad moment of the machine hits them all.

A figure is what came out in each round; its median stands for it, its quartiles for the noise.
"""

import statistics
from typing import NamedTuple


class Plan(NamedTuple):
    """How long and how often. Times are seconds."""

    checkout_rounds: int
    checkout_time: float  # for each round of each pool
    load_rounds: int
    load_time: float
    spike_rounds: int
    connect_delay: float  # what a connect of the spike costs more


FULL = Plan(25, 0.02, 7, 1.0, 3, 0.15)
QUICK = Plan(2, 0.002, 1, 0.1, 1, 0.01)


class Figure(NamedTuple):
    """One thing that was measured of several pools, in rounds that belong together."""

    section: str
    name: str
    unit: str
    more_is_better: bool
    rounds: dict[str, list[float]]  # a pool's name -> its values, round by round

    def median(self, pool):
        return statistics.median(self.rounds[pool])

    def better(self, pool, other):
        """Is `pool` better than `other`? Only if it was so in three rounds of four at least, and
        by more than 2 % in the median; else it is noise."""
        sign = 1 if self.more_is_better else -1
        ahead = [
            sign * mine > sign * theirs
            for mine, theirs in zip(self.rounds[pool], self.rounds[other], strict=True)
        ]
        mine, theirs = self.median(pool), self.median(other)
        return 4 * sum(ahead) >= 3 * len(ahead) and abs(mine - theirs) > 0.02 * max(mine, theirs)


def in_turns(contests, rounds):
    """Call each of `contests` (a name -> a function) once a round; return their results.

    Every second round goes backwards, so that nobody always comes after the same one.
    """
    results = {name: [] for name in contests}
    for n in range(rounds):
        for name in list(contests) if n % 2 == 0 else reversed(contests):
            results[name].append(contests[name]())
    return results


def quartiles(values):
    """Return lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, middle, high]
