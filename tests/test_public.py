"""The public names, their docstrings, and the Python of the README."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import matdesign as design

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "matdesign"
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("name", sorted(design._PUBLIC))
def test_a_public_name_resolves_and_says_what_it_is(name):
    value = getattr(design, name)
    assert name in dir(design)
    assert callable(value)
    doc = inspect.getdoc(value) or ""
    first = doc.split("\n", 1)[0]
    assert len(first) > 15, f"design.{name} has no docstring"
    assert first.endswith((".", ":")), f"first line of design.{name}: {first!r}"


def test_public_names_are_declared_for_type_checkers():
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    typed = {
        alias.asname: f"{node.module}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {n: f"matdesign.{place}" for n, place in design._PUBLIC.items()}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'crystal_ball'"):
        _ = design.crystal_ball


def test_no_folder_and_no_module_bears_the_name_of_a_public_function():
    """`import matdesign.view` would otherwise put a module in the place of `design.view`."""
    places = {p.stem for p in Path(design.__file__).parent.rglob("*.py")}
    places |= {p.parent.name for p in Path(design.__file__).parent.rglob("__init__.py")}
    assert not places & {name for name in design._PUBLIC if name.islower()}


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    spec = node.args
    names = [a.arg for a in (*spec.posonlyargs, *spec.args)]
    names += [spec.vararg.arg] if spec.vararg else []
    names += [a.arg for a in spec.kwonlyargs]
    names += [spec.kwarg.arg] if spec.kwarg else []
    return [n for n in names if n not in ("self", "cls")]


def _documented(doc: str) -> list[str] | None:
    """Return the names of the `Args:` section, None where there is no such section."""
    lines = inspect.cleandoc(doc).splitlines()
    if "Args:" not in lines:
        return None
    names: list[str] = []
    for line in lines[lines.index("Args:") + 1 :]:
        if line and not line.startswith(" "):
            break
        found = re.match(r" {4}((?:\*{0,2}\w+, )*\*{0,2}\w+)(?: \([^)]*\))?:", line)
        if found:
            names += [name.strip("* ") for name in found[1].split(",")]
    return names


def _disagreements(tree: ast.AST) -> list[str]:
    wrong = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        documented = _documented(ast.get_docstring(node) or "")
        if documented is None:
            continue
        if isinstance(node, ast.ClassDef):
            made = [n for n in node.body if getattr(n, "name", "") == "__init__"]
            fields = [
                n.target.id
                for n in node.body
                if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
            ]
            actual = _arguments(made[0]) if made else fields
            if node.bases and not made:  # fields may be inherited
                actual += [n for n in documented if n not in actual]
            # A dataclass may keep private or derived fields undocumented.
            ok = set(documented) <= set(actual) if not made else documented == actual
        else:
            actual = _arguments(node)
            ok = documented == actual
        if not ok:
            wrong.append(
                f"{node.name} (line {node.lineno}): {documented} is not {actual}"
            )
    return wrong


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_docstrings_agree_with_signatures(path):
    assert not _disagreements(ast.parse(path.read_text()))


def test_a_wrong_docstring_is_found():
    doc = "One.\n\n    Args:\n        a: x.\n        c: y.\n    "
    code = f'def f(a, *, b):\n    """{doc}"""'
    assert _disagreements(ast.parse(code))
    assert not _disagreements(ast.parse(code.replace("c: y", "b: y")))


def test_the_readme_shows_python():
    assert BLOCKS


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_python_runs(number, tmp_path):
    """Every block runs by itself, as it stands, in an empty folder."""
    shown = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", BLOCKS[number]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert shown.returncode == 0, shown.stderr[-2000:]


def test_the_doors_of_contributing_open(tmp_path):
    """Its constraint passes every check and its oracle runs a campaign, as they stand."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    names: dict[str, type] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    some = design.load("prototypes", split="test")[:12]
    assert design.check_constraint(names["Flat"](2), some)
    loop = design.Campaign(
        design.load_model("autoregressive-prototypes"),
        names["Flat"](1.5),
        names["Packing"](),
        tmp_path / "campaign.db",
        budget=4,
        batch=2,
        objective="volume_per_atom",
    )
    list(loop)
    best = loop.best(4)
    assert len(best) and bool(names["Flat"](1.5).satisfied(best).all())
