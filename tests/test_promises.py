"""Each promise of docs/promises.md has a test that holds it, and another one with the server."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
import test_pool
import test_pool_server

WORDS = (Path(__file__).parent.parent / "docs/promises.md").read_text(encoding="utf-8")
NUMBERS = [int(n) for n in re.findall(r"^(\d+)\. \*\*", WORDS, re.M)]

# A server sees backends, what they are asked, and what was committed. It sees nothing of the pool's
# arguments, line, clients and lock: that leaves out 2, 5, 7, 8, 14, 17 and 21.
THE_SERVER_CAN_JUDGE = [1, 3, 4, 6, 9, 10, 11, 12, 13, 15, 16, 18, 19, 20, 22]


def held_by(module):
    """The tests of a module that anybody may run at any time or, if the module says so, with a
    server: number of a promise -> their names."""
    tests = defaultdict(list)
    for name, test in vars(module).items():
        marks = getattr(test, "pytestmark", []) if name.startswith("test_") else []
        if {mark.name for mark in marks} & {"server", "slow", "lesson", "lab"}:
            continue
        for mark in marks:
            for n in mark.args if mark.name == "promise" else ():
                tests[n].append(name)
    return tests


def test_the_promises_are_numbered_from_1_to_22():
    assert NUMBERS == list(range(1, 23))


@pytest.mark.parametrize("n", NUMBERS)
def test_each_promise_has_a_fast_test(n):
    assert held_by(test_pool)[n], f"mark a test in test_pool.py: @pytest.mark.promise({n})"


@pytest.mark.parametrize("n", THE_SERVER_CAN_JUDGE)
def test_each_promise_that_the_server_can_judge_has_a_test_there(n):
    assert test_pool_server.pytestmark.name == "server"
    assert held_by(test_pool_server)[n], f"mark a test in test_pool_server.py: promise({n})"


@pytest.mark.parametrize("module", [test_pool, test_pool_server])
def test_no_test_holds_a_promise_that_nobody_made(module):
    assert [n for n in held_by(module) if n not in NUMBERS] == []
