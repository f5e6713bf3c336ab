"""`source`: the code that runs, shown on a page."""

import ast
import inspect
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

from matdesign.tables import render


@dataclass(frozen=True)
class Source:
    """The source of one object of the package, as it stands in its file.

    Args:
        name: qualified name of the object.
        text: its source, without common indentation.
        file: path of the file, relative to the folder that holds the package.
        line: number of its first line.
    """

    name: str
    text: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"# {self.file}, line {self.line}\n{self.text}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer

        look = HtmlFormatter(
            noclasses=True,
            style="xcode",
            prestyles="margin: 0; line-height: 1.4; overflow-x: auto",
            cssstyles="padding: 0.6em; border: 1px solid #bbb; background: #fff",
        )
        where = f"{self.name}: {self.file}, line {self.line}"
        return render(
            "source", code=highlight(self.text, PythonLexer(), look), where=where
        )


def source(which: Any) -> Source:
    """Return the highlighted source of a function, method, class or module.

    The book and the notebooks show the package by reference, never by copy: what a page
    prints is the code that runs.

    Args:
        which: anything that Python source was written for; properties and partial
            functions show what they wrap, an instance shows its class.

    Returns:
        A record that prints as text, and highlighted in a notebook.

    Raises:
        TypeError: the object was not written in Python (a built-in, or a compiled
            function); pass the function or class that uses it.

    Example:
        >>> print(source(Source))  # doctest: +ELLIPSIS
        # matdesign/display/listing.py, line ...
        @dataclass...
    """
    target = which
    while isinstance(target, property | partial):
        target = target.fget if isinstance(target, property) else target.func
    target = inspect.unwrap(target) if callable(target) else target
    if not isinstance(target, ModuleType | type) and not inspect.isroutine(target):
        target = type(target)
    try:
        lines, first = inspect.getsourcelines(target)
        file = Path(inspect.getsourcefile(target) or "")
    except (OSError, TypeError) as problem:
        raise TypeError(
            f"there is no Python source to show; got {which!r}, which is built in or "
            "was typed into a session. Pass a function, class or module of a file."
        ) from problem
    root = Path(__file__).resolve().parents[2]
    file = file.resolve()
    shown = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
    name = getattr(target, "__qualname__", getattr(target, "__name__", repr(target)))
    return Source(name, dedent("".join(lines)), shown.as_posix(), max(first, 1))


def without_docstrings(text: str) -> str:
    """Return source code without its docstrings, as the listings of the book show it.

    Args:
        text: Python source, indented or not.

    Returns:
        The other lines, as they stand.
    """
    lines, gone = text.splitlines(keepends=True), set[int]()
    for node in ast.walk(ast.parse(dedent(text))):
        body = getattr(node, "body", None)
        for one in body if isinstance(body, list) and len(body) > 1 else ():
            value = one.value if isinstance(one, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                end = one.end_lineno or one.lineno
                blank = end < len(lines) and not lines[end].strip()
                gone.update(range(one.lineno - 1, end + blank))
    return "".join(line for n, line in enumerate(lines) if n not in gone)
