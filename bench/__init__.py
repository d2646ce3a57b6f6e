"""poolkit beside the pools that a Python program would use instead: `make bench`.

peers        every pool behind one interface, as thin as it can be
checkout     what one checkout and return costs
load         more clients than connections: throughput, waits, fairness
spike        many requests at once, on a server that is slow to connect
experiments  what each pool does when something goes wrong
trials       what the experiments are made of
behaviour    the table of it
verdict      the ratios that count, and who is behind
report       tables, on the terminal and in docs/benchmark.md
"""
