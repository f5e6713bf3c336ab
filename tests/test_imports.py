"""Imports point one way, and importing the package stays cheap and without effects."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import matdesign

PACKAGE = Path(matdesign.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

RANK = {
    "errors": 0,
    "paths": 1,
    "tables": 1,
    "environment": 2,
    "crystals": 3,
    "generators": 4,
    "predictors": 5,
    "constraints": 6,
    "guidance": 7,
    "metrics": 8,
    "loop": 9,
    "display": 10,
    "teach": 11,
    "shell": 12,
    "campaigns": 12,
    "cli": 12,
}
"""The order of the parts of the book; a module imports its own rank and lower ones."""

ONLY_CRYSTALS = {"metrics"}
"""Judging knows crystals and nothing of what made them."""

DRAWING = {"nglview", "ipywidgets", "matplotlib"}
HEAVY = DRAWING | {
    "IPython",
    "ase",
    "chgnet",
    "lightning",
    "pandas",
    "pooch",
    "pyarrow",
    "pymatgen",
    "smact",
    "spglib",
}


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of every import in a tree, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            module = node.module or ""
            if module == "matdesign":  # from matdesign import X: X or the place of X
                for alias in node.names:
                    place = matdesign._PUBLIC.get(alias.name, alias.name)
                    yield node.lineno, f"matdesign.{place}"
            else:
                yield node.lineno, module


def _at_import_time(tree: ast.Module) -> ast.Module:
    """Keep what runs when the module is imported: no functions, no TYPE_CHECKING."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            if "TYPE_CHECKING" in ast.unparse(node.test):
                return node.orelse
            return self.generic_visit(node)

    return Strip().visit(tree)


def _backward(path: Path, tree: ast.AST) -> list[str]:
    part = _part(path)
    wrong = []
    for line, name in _imports(tree):
        if not name.startswith("matdesign"):
            continue
        target = name.split(".")[1] if "." in name else "__init__"
        if target in ("__version__", "__init__"):
            continue
        limited = part in ONLY_CRYSTALS and (
            RANK[target] > RANK["crystals"] and target not in ONLY_CRYSTALS
        )
        if RANK[target] > RANK[part] or limited:
            wrong.append(f"{path.name}:{line} ({part}) imports {name}")
    return wrong


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_module_has_a_rank():
    assert {_part(p) for p in MODULES} - {"__init__", "_data"} == set(RANK) & {
        _part(p) for p in MODULES
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    if path == PACKAGE / "__init__.py":
        return
    assert not _backward(path, _tree(path))


def test_a_backward_edge_is_found():
    """The check itself: a crystal that knew its sampler would be caught."""
    tree = ast.parse("def f():\n    from matdesign.generators.trainer import fit\n")
    assert _backward(PACKAGE / "crystals" / "batch.py", tree)
    assert not _backward(PACKAGE / "loop" / "oracle.py", tree)
    assert _backward(PACKAGE / "metrics" / "evaluator.py", tree)
    lazy = ast.parse("from matdesign import Campaign\n")
    assert _backward(PACKAGE / "guidance" / "guide.py", lazy)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_drawing_modules_draw(path):
    if _part(path) == "display" and path.stem in ("viewer", "live", "plots"):
        return
    found = [n for _, n in _imports(_tree(path)) if n.split(".")[0] in DRAWING]
    assert not found, (
        f"{path.name} imports {found}; draw in viewer.py, live.py or plots.py"
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_imports_wait_for_their_function(path):
    tree = _at_import_time(_tree(path))
    found = [n for _, n in _imports(tree) if n.split(".")[0] in HEAVY]
    assert not found, f"{path.name} imports {found} when it is itself imported"


def test_importing_the_package_loads_no_heavy_package():
    code = (
        "import json, sys, matdesign\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(shown.stdout))
    assert "matdesign" in loaded
    assert not loaded & HEAVY


def test_importing_has_no_effects():
    """Importing every module prints nothing and leaves random states alone."""
    names = [
        ".".join(("matdesign", *p.relative_to(PACKAGE).with_suffix("").parts))
        for p in MODULES
    ]
    names = [n.removesuffix(".__init__") for n in names]
    code = (
        "import importlib, random, sys, numpy, torch\n"
        "before = (random.getstate(), str(numpy.random.get_state()),\n"
        "          torch.get_rng_state().tolist(), torch.get_num_threads(),\n"
        "          torch.get_default_dtype())\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "after = (random.getstate(), str(numpy.random.get_state()),\n"
        "         torch.get_rng_state().tolist(), torch.get_num_threads(),\n"
        "         torch.get_default_dtype())\n"
        "sys.exit(before != after)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == ""


FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "torch.load",
    "torch.save",
    "pickle.load",
    "pickle.loads",
    "torch.manual_seed",
    "np.random.seed",
    "numpy.random.seed",
    "random.seed",
    "os.system",
}


REASONED = {
    "worker_main.py": {"pickle.load", "pickle.loads"},
    "trainer.py": {"torch.manual_seed"},
    "surrogate.py": {"torch.manual_seed"},
}
"""Messages on a pipe between this program and its own workers, never a file; the streams
that dropout and priors read, in a `fork_rng` that puts the caller's back."""


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_unsafe_and_no_global_seed(path):
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call)
    }
    assert not calls & FORBIDDEN_CALLS - REASONED.get(path.name, set())
    shells = [
        node
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.keyword) and node.arg == "shell"
    ]
    assert not shells
