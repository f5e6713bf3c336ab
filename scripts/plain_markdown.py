"""The book's Markdown (MyST) as the Markdown that a notebook shows."""

import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from matdesign.display.listing import without_docstrings

ROOT = Path(__file__).resolve().parent.parent
BOXES = ("grid-item-card", "note", "tip", "warning", "important", "admonition")
SPECIAL = ("fence", "colon_fence", "code_block", "math_block", "math_block_label")
MEASURED = "*Seconds are measured when the book is built: see this page on the site.*"


Block = tuple[str, str]
"""Kind and text of a piece of plain Markdown: `text`, `heading`, or `solution`, a heading
that folds what follows."""


class Book:
    """What pages know of each other: titles, where labels stand, and what is cited.

    Args:
        pages: name -> text of every page.
    """

    def __init__(self, pages: dict[str, str]) -> None:
        from pybtex.database import parse_file

        self.titles: dict[str, str] = {}
        self.labels: dict[str, tuple[str, str]] = {}  # page, and words of a link
        for page, text in pages.items():
            self.titles[page] = re.search(r"^# (.+)$", text, re.M)[1]
            named = re.findall(r"^\((.+)\)=\n+#+ (.+)$", text, re.M)
            asked = re.findall(r"\{exercise-start\} (.+)\n:label: (.+)", text)
            named += [(label, title) for title, label in asked]
            equations = re.findall(r"\$\$ \(([\w-]+)\)$", text, re.M)
            named += [(label, f"({n})") for n, label in enumerate(equations, 1)]
            self.labels |= {label: (page, words) for label, words in named}
        self.entries = parse_file(str(ROOT / "book" / "references.bib")).entries

    def link(self, page: str, label: str, words: str = "") -> str:
        """Return a link from a page to a label, or to a whole page (`name.md`)."""
        target, _, place = label.partition("#")
        if target.endswith(".md"):
            name = target.removesuffix(".md")
            place = f"#{place}" if place else ""
            return f"[{words or self.titles[name]}]({name}.ipynb{place})"
        where, name = self.labels[place or target]
        file = "" if where == page else f"{where}.ipynb"
        return f"[{words or name}]({file}#{place or target})"

    def cite(self, keys: str, *, inside: bool) -> str:
        """Return author and year of one or more sources, as in `(A and B, 2021)`."""
        made = []
        for key in keys.split(","):
            entry = self.entries[key.strip()]
            people = entry.persons["author"]
            names = [" ".join(map(str, one.rich_last_names)) for one in people]
            who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
            year = entry.fields["year"]
            words = f"{who}, {year}" if inside else f"{who} ({year})"
            made.append(f"[{words}](bibliography.ipynb#{key.strip()})")
        return f"({'; '.join(made)})" if inside else "; ".join(made)

    def bibliography(self) -> str:
        """Return every source as a list."""
        from pybtex.backends.markdown import Backend
        from pybtex.style.formatting.plain import Style

        entries = Style().format_entries(self.entries.values())
        return "\n".join(
            f'* <a id="{one.key}"></a>{one.text.render(Backend("utf-8"))}'
            for one in entries
        )


class Page:
    """One page on its way to plain Markdown, cell by cell.

    Numbers that the page computes are left as `«name»`.
    """

    def __init__(self, name: str, book: Book) -> None:
        self.name, self.book = name, book
        self.level = 1
        self.targets: list[str] = []

    def blocks(self, text: str) -> list[Block]:
        """Return a Markdown cell in pieces.

        Raises:
            ValueError: a directive or role that is not known here.
        """
        lines = text.split("\n")
        tokens = [t for t in parser().parse(text) if t.map and t.nesting >= 0]
        special = {t.map[0]: t for t in tokens if t.type in SPECIAL}
        made = (self._block(t, lines, special) for t in tokens if t.level == 0)
        return [(kind, said) for kind, said in made if said.strip()]

    def _block(self, token: Any, lines: list[str], special: dict[int, Any]) -> Block:
        first, last = token.map
        if token.type == "myst_target":
            self.targets.append(token.content)
            return "text", ""
        if token.type == "heading_open":
            self.level = int(token.tag[1])
            return "heading", self._heading(self._inline(lines[first]))
        name, title, options, _ = _directive(token)
        if name == "exercise-start":
            self.targets.append(options["label"])
            return "heading", self._heading(f"{self._below} Exercise: {title}")
        if name == "solution-start":
            return "solution", f"{self._below} Solution: {self.book.labels[title][1]}"
        made: list[str] = []
        plain: list[str] = []
        while first < last:
            one = special.get(first)
            if one is None:
                plain.append(lines[first])
                first += 1
                continue
            made.append(self._inline("\n".join(plain)))
            indent = re.match(r"\s*", lines[first])[0] if one.level else ""
            made.append(textwrap.indent(self._special(one, lines), indent))
            plain, first = [], one.map[1]
        made.append(self._inline("\n".join(plain)))
        return "text", "\n".join(part for part in made if part).rstrip()

    @property
    def _below(self) -> str:
        return "#" * (self.level + 1)

    def _heading(self, line: str) -> str:
        anchors = "".join(f' <a id="{label}"></a>' for label in self.targets)
        self.targets = []
        return line + anchors

    def _special(self, token: Any, lines: list[str]) -> str:
        if token.type.startswith("math_block"):
            math = token.content.strip()
            if "\\\\" in math and "\\begin" not in math:
                math = f"\\begin{{split}}\n{math}\n\\end{{split}}"
            if not token.info:
                return f"$$\n{math}\n$$"
            tag = f"\\tag{{{self.book.labels[token.info][1][1:-1]}}}"
            return f'<a id="{token.info}"></a>\n\n$$\n{math} {tag}\n$$'
        name, title, options, body = _directive(token)
        if not name:
            return "\n".join(lines[slice(*token.map)])
        if name in ("exercise-end", "solution-end"):
            return ""
        if name == "literalinclude":
            return _listing(title, options)
        if name == "glossary":
            return self._glossary(body)
        if name == "bibliography":
            return self.book.bibliography()
        if name == "nb-exec-table":
            return MEASURED
        inner = "\n\n".join(said for _, said in self.blocks(body))
        if name == "grid":
            return inner
        if name in BOXES:
            return textwrap.indent(
                f"**{title or name.capitalize()}**\n\n{inner}", "> ", lambda _: True
            )
        raise ValueError(f"{self.name}: no notebook form for the directive {name!r}.")

    def _glossary(self, body: str) -> str:
        def term(found: re.Match[str]) -> str:
            return f'<a id="{_slug(found[0])}"></a>**{found[0]}**  '

        named = re.sub(r"^\S.*$", term, body, flags=re.M)
        return self._inline("\n".join(map(str.lstrip, named.split("\n"))))

    def _inline(self, text: str) -> str:
        def linked(found: re.Match[str]) -> str:
            words, target = found.groups()
            known = target.endswith(".md") or target.strip("#") in self.book.labels
            return self.book.link(self.name, target, words) if known else found[0]

        text = re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", linked, text)
        return re.sub(r"\{([\w:]+)\}`([^`]+)`", self._role, text)

    def _role(self, found: re.Match[str]) -> str:
        role, content = found[1], " ".join(found[2].split())
        explicit = re.fullmatch(r"(.*?)\s*<(.*)>", content)
        words, target = explicit.groups() if explicit else ("", content)
        match role:
            case "math":
                return f"${content}$"
            case "glue:text":
                return f"«{content}»"
            case "cite:p" | "cite:t":
                return self.book.cite(content, inside=role == "cite:p")
            case "eq" | "ref":
                return self.book.link(self.name, target, words)
            case "doc":
                return self.book.link(self.name, f"{target}.md", words)
            case "term":
                place = f"glossary.md#{_slug(target)}"
                return self.book.link(self.name, place, words or content)
            case "class" | "func" | "meth" | "mod":
                return f"`{words or target}`"
            case "kbd" | "sub" | "sup":
                return f"<{role}>{content}</{role}>"
        raise ValueError(f"{self.name}: no notebook form for the role {role!r}.")


@cache
def parser() -> Any:
    """Return the parser that the book is built with."""
    from markdown_it.renderer import RendererHTML
    from myst_parser.config.main import MdParserConfig
    from myst_parser.parsers.mdit import create_md_parser

    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    extensions = set(config["parse"]["myst_enable_extensions"])
    return create_md_parser(MdParserConfig(enable_extensions=extensions), RendererHTML)


def _directive(token: Any) -> tuple[str, str, dict[str, str], str]:
    """Return name, argument, options and body of a directive; no name for other text."""
    found = re.fullmatch(r"\{([\w-]+)\}\s*(.*)", token.info.strip())
    if found is None or token.type not in ("fence", "colon_fence"):
        return "", "", {}, ""
    head = re.match(r"(:[\w-]+:.*(\n|$))*", token.content)
    options = dict(re.findall(r":([\w-]+):\s*(.*)", head[0]))
    return found[1], found[2], options, token.content[head.end() :].strip("\n")


def _listing(file: str, options: dict[str, str]) -> str:
    """Return the lines that the book's own `literalinclude` would show."""
    from sphinx.config import Config
    from sphinx.directives.code import LiteralIncludeReader

    language = options.pop("language", "python")
    reader = LiteralIncludeReader(str(ROOT / "book" / file), options, Config())
    text, _ = reader.read()
    text = textwrap.dedent(without_docstrings(text))
    return f"```{language}\n{text.strip()}\n```"


def _slug(term: str) -> str:
    return "term-" + re.sub(r"\W+", "-", term.lower()).strip("-")
