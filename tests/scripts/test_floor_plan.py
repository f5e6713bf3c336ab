"""The drawn floor plan shows the package as it stands."""

import re

import floor_plan
import size


def rooms(svg: str) -> dict[str, float]:
    """Return module -> width of its room."""
    found = re.findall(
        r"<title>(matdesign\S+): .*?</title>\s*<rect.*? width=\"(.*?)\"", svg
    )
    return {name: float(wide) for name, wide in found}


def test_every_module_is_a_room_as_wide_as_its_lines():
    found = rooms(floor_plan.drawn())
    assert set(found) == {n for n, p in size.modules().items() if p.stem != "__init__"}
    for name, wide in found.items():
        assert abs(wide * floor_plan.LINES - size.lines(size.modules()[name])) < 1


def test_floors_stand_on_what_they_import():
    order = list(floor_plan.floors())
    assert order[0] == "root" and order[-1] == "crystals"
    assert (
        order.index("guidance") < order.index("constraints") < order.index("generators")
    )


def test_the_committed_plan_is_of_this_package():
    committed = rooms(floor_plan.PLAN.read_text(encoding="utf-8"))
    today = rooms(floor_plan.drawn())
    assert set(committed) == set(today), "run python scripts/floor_plan.py"
    off = sum(abs(wide - committed[name]) for name, wide in today.items())
    assert off < 0.1 * sum(today.values()), "run python scripts/floor_plan.py"
