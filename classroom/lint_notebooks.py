"""Check that notebooks are saved as a reader should find them: part of `make lint`.

The notebook file is the source: no outputs and no execution counts, which would be somebody's
machine and not the learner's; cell ids that stay, so that a change shows as that change; the kernel
"python3", which the set-up provides. `--strip` removes what should not be there.
"""

import json
import sys

from .place import ROOT

NOTEBOOKS = ROOT / "notebooks"
CLEAR = "try: .venv/bin/python -m classroom.lint_notebooks --strip"


def problems(text: str) -> list[str]:
    """Return what is wrong with a notebook, one line each, from the text of its file."""
    import nbformat  # here, as it takes a second, and not all who load this file need it

    try:
        notebook = json.loads(text)
        nbformat.validate(notebook)
    except (ValueError, nbformat.ValidationError) as error:
        return [f"not a valid notebook: {str(error).splitlines()[0]}"]
    found = []
    if (notebook["nbformat"], notebook["nbformat_minor"]) < (4, 5):
        found.append("older than format 4.5, which has cell ids; try: save it in JupyterLab")
    kernel = notebook["metadata"].get("kernelspec", {}).get("name")
    if kernel != "python3":
        found.append(f"its kernel is {kernel!r}; try: 'python3'")
    if "widgets" in notebook["metadata"]:
        found.append(f"the state of widgets is saved; {CLEAR}")
    for number, cell in enumerate(notebook["cells"], 1):
        where = f"cell {number} ({cell.get('id', 'no id')})"
        if cell.get("outputs"):
            found.append(f"{where}: outputs are saved; {CLEAR}")
        if cell.get("execution_count") is not None:
            found.append(f"{where}: an execution count is saved; {CLEAR}")
        if "raises-exception" in cell["metadata"].get("tags", []):
            found.append(f"{where}: tagged raises-exception; try: with expect(TheError):")
    return found


def stripped(text: str) -> str:
    """Return the text of a notebook without outputs, execution counts and widgets' state."""
    notebook = json.loads(text)
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
            cell["metadata"].pop("execution", None)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main(arguments=None) -> int:
    """Check, or strip, every notebook; return 0 if nothing is wrong with them, else 1."""
    strip = "--strip" in (sys.argv[1:] if arguments is None else arguments)
    wrong = 0
    paths = sorted(NOTEBOOKS.rglob("*.ipynb"))
    paths = [path for path in paths if ".ipynb_checkpoints" not in path.parts]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if strip and problems(text):
            text = stripped(text)
            path.write_text(text, encoding="utf-8")
        for line in problems(text):
            wrong += 1
            print(f"{path.relative_to(ROOT)}: {line}")
    if not wrong:
        print(f"{len(paths)} notebooks are saved as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
