# Each verb is one call, which Windows can make too: py -m classroom.setup VERB
# With another Python: make lab PYTHON=python3.12. More words for the verb: make lab ARGS="--port 9000"
PYTHON ?= python3
ARGS ?=

.PHONY: help setup lab test fast bench chaos lint lock clean

help:
	@$(PYTHON) -m classroom.setup --help

setup lab test fast bench chaos lint lock clean:
	@$(PYTHON) -m classroom.setup $@ $(ARGS)
