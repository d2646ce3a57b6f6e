"""One screen that says what happened."""

from collections import Counter

from .judge import COMMITTED, UNDONE, UNKNOWN

LINES, LENGTH = 10, 500  # of violations


def report(judge, clients):
    said = Counter(what for client in clients for what in client.ledger.values())
    wait = max(client.longest_wait for client in clients)
    columns("operations", total(client.did for client in clients))
    columns("errors met", total(client.met for client in clients))
    columns("done to the pool", judge.done)
    columns("told by the pool", judge.events)
    print(
        f"""
checkouts    {sum(client.checkouts for client in clients)}; the longest wait was {wait:.2f} s, \
the restart took {judge.restart_took:.2f} s
connections  {judge.opened} opened; at most {max(judge.sizes)} were allowed at once, and the server
             saw {judge.peak_open}, or {judge.peak_shown} with those that were about to go, \
in {judge.samples} looks
rows         {said[COMMITTED]} committed, {said[UNDONE]} not, {said[UNKNOWN]} lost while \
committing, of which {judge.arrived} arrived
at the end   {judge.at_the_end}
"""
    )
    for line in judge.violations[:LINES]:
        print("VIOLATED", line[:LENGTH])
    if (more := len(judge.violations) - LINES) > 0:
        print(f"VIOLATED {more} times more")
    print(judge.traceback, end="")
    print("chaos:", "see what was VIOLATED" if judge.violations else "all promises were kept")


def total(counters):
    return sum(counters, Counter())


def columns(title, counts):
    """Print the counts in three columns, the largest first."""
    print(f"\n{title}")
    cells = [f"{n:>7} {name.replace('_', ' ')}" for name, n in Counter(counts).most_common()]
    for i in range(0, len(cells), 3):
        print("".join(f"{cell:<34}" for cell in cells[i : i + 3]).rstrip())
