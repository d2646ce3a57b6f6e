"""`python -m bench`: everything in one run, about three minutes. `make bench` calls it."""

import argparse
import sys

from classroom import servers
from classroom.place import ROOT, PlaceError
from classroom.servers import ServerError, postgres

from . import behaviour, checkout, load, machine, report, spike
from .rounds import FULL, QUICK

PAGE = ROOT / "docs" / "benchmark.md"


def arguments():
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure poolkit beside other people's pools."
    )
    parser.add_argument("--quick", action="store_true", help="see in ten seconds that it works")
    parser.add_argument("--write", action="store_true", help="write docs/benchmark.md as well")
    return parser


def run(server, plan):
    """Measure everything at `server`, saying on stderr what is being measured. Returns the blocks
    of the report."""
    about = machine.describe(server)  # first: the load is that of before
    figures = []
    for part in (checkout, load, spike):
        say(f"measuring: {part.__name__.removeprefix('bench.')} …")
        figures += part.measure(server.dsn, plan)
    rows = []
    if plan is not QUICK:
        say("measuring: behaviour …")
        rows = behaviour.table(server.dsn, server.admin_dsn)
    return report.blocks(figures, about, plan, rows)


def say(text):
    print("poolkit: " + text, file=sys.stderr, flush=True)


def main(argv=None):
    options = arguments().parse_args(argv)
    if options.quick and options.write:
        arguments().error("--quick measures too little to be written down; leave out one of them")
    try:
        server = servers.find()
        try:
            blocks = run(server, QUICK if options.quick else FULL)
        finally:
            if server.kind == "private":
                postgres.release()
    except (PlaceError, ServerError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped; nothing is written")
        return 1
    print(report.plain(blocks))
    if options.write:
        PAGE.write_text(report.markdown(blocks), encoding="utf-8")
        say(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
