"""Which line of whose code: how a checkout is named in errors, tables and figures."""

import os
import sys


def describe(code, line: int) -> str:
    """Say where a code object's line stands: "app.py:12 in handle", "cell In[7] line 3 in handle".

    At the top level of a file or of a cell there is no function to name.
    """
    cell = _cell(code.co_filename)
    place = f"cell {cell} line {line}" if cell else f"{os.path.basename(code.co_filename)}:{line}"
    return place if code.co_name == "<module>" else f"{place} in {code.co_name}"


def where(client) -> str:
    """Say where a client asked. It noted an instruction: the line that belongs to it is looked up
    here, when somebody wants to know, and not at every checkout."""
    _, code, instruction, _ = client
    lines = (line for start, end, line in code.co_lines() if start <= instruction < end)
    return describe(code, next(lines))


def _cell(filename):
    # A notebook cell is compiled under a made-up file name. IPython knows which cell that was; it
    # is asked only if it is running anyway.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    try:
        kind, label = shell.compile.format_code_name(filename)
    except (AttributeError, TypeError):  # no notebook, or not one of its cells
        return None
    return label
