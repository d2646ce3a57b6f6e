"""What the figures say: were the targets met, where is poolkit behind, and where ahead?

All of it is computed. Ratios are taken round by round, between values that were measured within
seconds of each other.
"""

from typing import NamedTuple

from . import checkout, load, peers, spike
from .rounds import quartiles

US = peers.Poolkit.name
FAIR = 0.99
CAN_WAIT = [peer.name for peer in peers.PEERS if peer.waits and peer is not peers.Poolkit]


class Target(NamedTuple):
    """A number that was asked for, and what came out, round by round (nothing: not measurable)."""

    what: str
    values: list[float]
    limit: float
    at_least: bool = False

    @property
    def met(self):
        if not self.values:
            return None
        value = quartiles(self.values)[1]
        return value >= self.limit if self.at_least else value <= self.limit


def targets(figures) -> list[Target]:
    """Compare with what the pool is meant to reach."""
    find = {(figure.section, figure.name): figure for figure in figures}
    calls = find[checkout.SECTION, checkout.CALLS]
    quick, slow = load.QUERIES
    throughput, jain = find[quick, load.THROUGHPUT], find[quick, load.JAIN]
    waits = find[slow, load.P99].rounds[US]
    took, connects = find[spike.SECTION, spike.TIME], find[spike.SECTION, spike.CONNECTS]
    bare, pp = peers.Psycopg2Threaded.name, peers.PsycopgPool.name

    def against_the_best(names, of):
        if not names:
            return f"{of}: there is none", []
        best = max(names, key=throughput.median)
        return f"{of}, {best}", _ratios(throughput, US, best)

    found = [Target(f"checkout cost / {bare}, which checks nothing", _ratios(calls, US, bare), 2.2)]
    found += [Target(f"checkout cost / {name}", _ratios(calls, US, name), 1.0) for name in CAN_WAIT]
    what, values = against_the_best(CAN_WAIT, "the best that can wait")
    found.append(Target(f"{quick}: throughput / {what}", values, 0.9, at_least=True))
    fair = [name for name in CAN_WAIT if jain.median(name) >= FAIR]
    what, values = against_the_best(fair, f"the best of those with Jain >= {FAIR}")
    found.append(Target(f"{quick}: throughput / {what}", values, 2.0, at_least=True))
    return [
        *found,
        Target(f"{quick}: Jain fairness", jain.rounds[US], FAIR, at_least=True),
        Target(
            f"{slow}: p99 wait / the ideal {load.IDEAL_MS:g} ms",
            [wait / load.IDEAL_MS for wait in waits],
            1.3,
        ),
        Target(f"spike: time / {pp}", _ratios(took, US, pp), 1.3),
        Target("spike: needless connects, in the worst round", [max(connects.rounds[US])], 1.0),
    ]


def _ratios(figure, pool, other):
    pairs = zip(figure.rounds[pool], figure.rounds[other], strict=True)
    return [mine / theirs for mine, theirs in pairs]


def losses(figures) -> list[str]:
    """Say of each figure where others were better than poolkit: one line for each figure."""
    lines = []
    for figure in _ours(figures):
        ahead = [pool for pool in figure.rounds if figure.better(pool, US)]
        if ahead:
            others = ", ".join(f"{pool} {_value(figure, pool, figures)}" for pool in ahead)
            lines.append(f"{title(figure)}: {US} {_value(figure, US, figures)}, but {others}")
    return lines


def wins(figures) -> list[str]:
    """Name the figures in which poolkit was better than every other."""
    return [
        title(figure)
        for figure in _ours(figures)
        if all(figure.better(US, pool) for pool in figure.rounds if pool != US)
    ]


def misbehaviour(rows) -> list[str]:
    """Say where poolkit does not do as it should, and who does: a line for each behaviour."""
    lines = []
    for behaviour, findings in rows:
        if findings[US].good is False or findings[US].failed:
            well = [pool for pool, finding in findings.items() if finding.good]
            others = f", but with {', '.join(well)}: {findings[well[0]].text}" if well else ""
            lines.append(f"{behaviour}: {findings[US].text}{others}")
    return lines


def _ours(figures):
    return [figure for figure in figures if US in figure.rounds]


def _value(figure, pool, figures):
    """A median with its unit; and its pool's fairness, where some clients got next to nothing."""
    text = f"{number(figure.median(pool))} {figure.unit}".strip()
    for other in figures:
        if other.section == figure.section and other.name == load.JAIN and other is not figure:
            if other.median(pool) < 0.9:
                text += f" (Jain {number(other.median(pool))})"
    return text


def title(figure):
    return f"{figure.section}, {figure.name}"


def number(value):
    """Three digits that matter: "5,567", "17.9", "2.23", "0.254"."""
    for least, digits in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.3f}" if value else "0"
