"""The report: what was measured, on what, what it means. For the terminal, and as Markdown.

Every number in it, and every sentence about who is ahead, comes from the figures.
"""

import textwrap
from typing import NamedTuple

from . import behaviour, checkout, load, spike
from .rounds import QUICK, quartiles
from .verdict import US, losses, misbehaviour, number, targets, wins

SPREAD = "Medians over rounds; in brackets the lower and upper quartile."


class Heading(NamedTuple):
    text: str


class Text(NamedTuple):
    text: str


class Points(NamedTuple):
    lines: list[str]


class Table(NamedTuple):
    header: list[str]
    rows: list[list[str]]


class Behaviours(NamedTuple):
    rows: list[behaviour.Row]


def blocks(figures, machine, plan, rows=()) -> list:
    """Put the report together. `rows` are those of the behaviour table; none leaves it out."""
    left_out = Text("Left out of --quick; try: make bench")
    return [
        *_ahead(figures, rows, plan),
        *_asked(figures),
        *_checkouts(figures),
        *_loads(figures, plan),
        *_spike(figures, plan),
        Heading("Behaviour"),
        Behaviours(rows) if rows else left_out,
        Heading("The machine"),
        Table(["", ""], [[*line] for line in machine]),
    ]


def _ahead(figures, rows, plan):
    ours = sum(US in figure.rounds for figure in figures)
    behind, ahead, wrong = losses(figures), wins(figures), misbehaviour(rows)
    yield Heading("Who is ahead")
    if plan == QUICK:
        yield Text("This was --quick: so short that none of it means anything.")
    text = (
        "Better means: in three rounds of four at least, and by more than 2 % in the median. By "
        f"that measure {US} is the best in {len(ahead)} of the {ours} figures below, and somebody "
        f"is better than {US} in {len(behind)}."
    )
    if rows:
        text += f" It does as it should in {len(rows) - len(wrong)} of {len(rows)} behaviours."
    yield Text(text)
    if behind or wrong:
        yield Text(f"Where {US} loses:")
        yield Points(behind + wrong)
    if ahead:
        yield Text(f"Where {US} is ahead of all others:")
        yield Points(ahead)


def _asked(figures):
    yield Heading("What is asked of poolkit")
    yield Text("Ratios of values from the same round. " + SPREAD)
    rows = [_target(target) for target in targets(figures)]
    yield Table(["", "measured", "asked for", ""], rows)


def _target(target):
    asked = f"{'>=' if target.at_least else '<='} {target.limit:g}"
    if not target.values:
        return [target.what, "—", asked, ""]
    return [target.what, _spread(target.values), asked, "met" if target.met else "NOT MET"]


def _checkouts(figures):
    yield Heading(checkout.SECTION)
    yield Text(
        f"One thread, nothing to wait for, no query. {SPREAD} Of all these, poolkit and "
        '"psycopg_pool + check" look whether the connection is alive, the latter by a round trip. '
        "psycopg_pool opens connections of psycopg 3, all others those of psycopg2."
    )
    yield _table(figures, checkout.SECTION)


def _loads(figures, plan):
    quick, slow = load.QUERIES
    fewest = load.CONNECTIONS / load.CLIENTS
    clients = f"{load.CLIENTS} clients, {load.CONNECTIONS} connections"
    yield Heading(f"{clients}, {quick}")
    yield Text(
        f"Each client checks out, runs `{load.QUERIES[quick]}`, commits and returns, again and "
        f"again, for {plan.load_time:g} s a round. {SPREAD} Waits are for a connection. Jain's "
        f"index says how equal the clients' shares are: 1 is equal, {fewest:g} is "
        f"{load.CONNECTIONS} clients having it all while the others get nothing; then the "
        "quantiles are of the waits of the few, and the worst wait is as long as the round. "
        "psycopg2's pool cannot wait: its clients ask again every ms. Unpooled, there is no limit, "
        "and a wait is a connect."
    )
    yield _table(figures, quick)
    yield Text(
        f"The same work without a pool: {load.CONNECTIONS} clients with a connection each, so that "
        "nobody waits for anybody. What is lost against this, with the same driver, is the price "
        "of sharing."
    )
    yield _table(figures, load.NO_POOL)
    yield Heading(f"{clients}, {slow}")
    yield Text(f"The same with `{load.QUERIES[slow]}`.")
    yield _table(figures, slow)


def _spike(figures, plan):
    yield Heading("A spike")
    yield Text(
        f"{spike.REQUESTS} requests at once on {spike.OPEN} open connections of at most "
        f"{spike.MAX}; a connect costs {plan.connect_delay * 1000:g} ms more, a query takes 2 ms. "
        f"{SPREAD} The open ones could serve all before a new one is there, so every connect is "
        "needless."
    )
    yield _table(figures, spike.SECTION)


def _table(figures, section):
    figures = [figure for figure in figures if figure.section == section]
    pools = list(dict.fromkeys(pool for figure in figures for pool in figure.rounds))
    header = ["", *(", ".join(filter(None, (figure.name, figure.unit))) for figure in figures)]
    rows = [[pool, *(_spread(figure.rounds.get(pool, [])) for figure in figures)] for pool in pools]
    return Table(header, rows)


def _spread(values):
    if not values:
        return ""
    low, middle, high = map(number, quartiles(values))
    return middle if low == middle == high else f"{middle} ({low}–{high})"


def plain(blocks) -> str:
    """Return the report for a terminal."""
    return "\n\n".join(_plain(block) for block in blocks)


def _plain(block):
    match block:
        case Heading(text):
            return f"{text}\n{'=' * len(text)}"
        case Text(text):
            return textwrap.fill(text, 100)
        case Points(lines):
            fold = {"width": 100, "initial_indent": "- ", "subsequent_indent": "  "}
            return "\n".join(textwrap.fill(line, **fold) for line in lines)
        case Table(header, rows):
            return _columns([header, *rows] if any(header) else rows)
        case Behaviours(rows):
            return behaviour.text(rows)


def _columns(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def markdown(blocks) -> str:
    """Return the report as the page in docs/."""
    return "\n\n".join([PREFACE, *(_markdown(block) for block in blocks)]) + "\n"


PREFACE = """\
<!-- Written by `make bench ARGS=--write`. Do not edit: the next run writes it anew. -->

# poolkit beside its peers

One run of `make bench ARGS=--write` measured all of this and wrote this page, every sentence about
who is ahead included. Absolute numbers are one machine's, named at the end; ratios travel better.
Your own: `make bench`."""


def _markdown(block):
    match block:
        case Heading(text):
            return f"## {text}"
        case Text(text):
            return text
        case Points(lines):
            return "\n".join(f"* {line}" for line in lines)
        case Table(header, rows):
            lines = [header, ["---"] * len(header), *rows]
            return "\n".join(f"| {' | '.join(_escaped(line))} |" for line in lines)
        case Behaviours(rows):
            return behaviour.markdown(rows).strip()


def _escaped(cells):
    return [cell.replace("|", r"\|").replace("NOT MET", "**not met**") for cell in cells]
