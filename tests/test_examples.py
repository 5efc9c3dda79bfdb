# SPDX-License-Identifier: Apache-2.0
"""The notebooks in examples/: each runs from start to end, and prints what it shows to those who read it on a web page."""

import ast
import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(source, name, namespace):
    """What a cell prints. The value of its last line is shown as a notebook would show it."""
    tree = ast.parse(source, name)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, name, "exec"), namespace)
        if last is not None:
            value = eval(compile(last, name, "eval"), namespace)
            assert value is None or value._repr_html_()
    return printed.getvalue()


@pytest.mark.parametrize("name", ["first_look", "evaluation", "prototype"])
def test_a_notebook_prints_what_it_shows(name, smollm2_path):
    path = EXAMPLES / f"{name}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert str(Path.home()) not in path.read_text(encoding="utf-8")
    namespace = {"__name__": name}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for i, cell in enumerate(code, 1):
        printed = run("".join(cell["source"]), f"{path.name}, cell {i}", namespace)
        shown = "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")
        assert cell["execution_count"] == i
        if "varies" not in cell["metadata"].get("tags", ()):  # timings and memory; all else is the same everywhere
            assert printed == shown
    namespace["m"].close()
