"""Draw the package as a house, each module a room as wide as its lines.

    python scripts/floor_plan.py

Writes book/floor-plan.svg. Lines count as in scripts/size.py. Floors stand in the order
of imports: a module reads its own floor and those below.
"""

import argparse
import ast
import xml.etree.ElementTree as ET
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import size

PLAN = size.ROOT / "book" / "floor-plan.svg"
LEFT, WIDTH, ROOM, FLOOR = 120, 830, 26, 36
"""Widths of names and rooms, height of a room, least height of a floor; px."""
LINES, LETTER = 3.2, 5.2
"""Lines of code that one px stands for; width of a letter, px."""
PARTS = {"I": "#cfe3f5", "II": "#fbdcbf", "III": "#d3ecd0", "V": "#ecd6ee"}
"""Colours of the parts of the book; what serves all is grey."""
STYLE = (
    "text{font:9px sans-serif;fill:#222} .part{font:bold 13px sans-serif} "
    "g rect{stroke:#888;stroke-width:.5}"
)


def floors() -> dict[str, list[str]]:
    """Return part -> its modules, the part that reads all others first."""
    found = defaultdict[str, list[str]](list)
    for name, path in size.modules().items():
        first, *rest = path.relative_to(size.ROOT / "matdesign").parts
        found[first if rest else "root"].append(name)
    home = {name: part for part, names in found.items() for name in names}
    reads = {
        part: {home[b] for a in names for b in size.imports(a)} - {part, "root"}
        for part, names in found.items()
    }
    reads["root"] = set(reads) - {"root"}
    order = list(TopologicalSorter(reads).static_order())
    return {part: found[part] for part in reversed(order)}


def about(path: Path) -> str:
    """Return the first line of a module's docstring."""
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return words.split("\n")[0]


def colour(part: str) -> str:
    """Return the colour of a part, by the docstring of its folder: "Part II: ..."."""
    words = about(size.ROOT / "matdesign" / part / "__init__.py").partition(":")[0]
    return PARTS.get(words.removeprefix("Part "), "#e6e6e6")


def drawn() -> str:
    """Return the plan as SVG."""
    svg = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
    ET.SubElement(svg, "title").text = "The package: its parts, modules and lines"
    ET.SubElement(svg, "style").text = STYLE
    ET.SubElement(svg, "rect", width="100%", height="100%", fill="#fff")

    def write(into: ET.Element, text: str, x: float, y: float, kind: str = "") -> None:
        place = {"x": f"{x:.1f}", "y": f"{y:.1f}", **({"class": kind} if kind else {})}
        ET.SubElement(into, "text", place).text = text

    y = 8.0
    for part, names in floors().items():
        paths = {name: size.modules()[name] for name in names}
        write(svg, part, 8, y + 12, "part")
        write(svg, f"{sum(map(size.lines, paths.values())):,} lines", 8, y + 26)
        x, top, fill = 0.0, y, "#e6e6e6" if part == "root" else colour(part)
        for name, path in paths.items():
            wide = size.lines(path) / LINES
            if path.stem == "__init__":
                continue
            if x + wide > WIDTH:
                x, y = 0.0, y + ROOM
            room = ET.SubElement(svg, "g")
            ET.SubElement(room, "title").text = f"{name}: {about(path)}"
            sides = {"width": f"{wide:.1f}", "height": str(ROOM), "fill": fill}
            ET.SubElement(room, "rect", x=f"{LEFT + x:.1f}", y=str(y), attrib=sides)
            letters = int((wide - 5) / LETTER)
            if letters >= min(len(path.stem), 4):
                fits = len(path.stem) <= letters
                text = path.stem if fits else path.stem[: letters - 1] + "…"
                write(room, text, LEFT + x + 3, y + 16)
            x += wide
        y = max(y + ROOM, top + FLOOR) + 6
    svg.set("viewBox", f"0 0 {LEFT + WIDTH + 8} {y:.0f}")
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    PLAN.write_text(drawn(), encoding="utf-8")
