"""Run notebooks in JupyterLab as a reader does, and say what each of them did.

    make lab                                   # once, so that the chapters are notebooks
    python tests/browser/tour.py quickstart representations diffusion

Each is opened in a headless Chromium, run whole, and every kind of control is moved: a
slider must change what stands in its output. Copies in a temporary folder are run. Counted
are cells, errors, live viewers, sliders that react and boxes that do; what is left of
unfilled numbers or raw markup is an error. A screenshot of each lies in build/tour. The
exit code is 1 where something is wrong, or where the checkout is not as it was.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from conftest import CHROMIUM, FLAGS
from lab_server import SHOWN, open_notebook, run_all, serving
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "notebooks" / "chapters"
PICTURES = ROOT / "build" / "tour"
RAW = re.compile(r"\{(glue:|ref|doc|cite|eq|term)[\w:]*\}`|:::|```\{")
CELL = f"{SHOWN} .jp-Notebook .jp-CodeCell"


def tree() -> str:
    """Return what git says has changed."""
    done = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout


def finished(page: Any, most: int = 600) -> bool:
    """Wait until no cell is queued or running; tell whether that came."""
    waiting = page.locator(f"{SHOWN} .jp-InputPrompt", has_text="[*]")
    for _ in range(most // 2):
        page.wait_for_timeout(2000)
        if waiting.count() == 0:
            return True
    return False


def reacts(page: Any, control: Any) -> bool:
    """Move a slider to its end, or tick a box; tell whether its output changed."""
    output = control.locator(
        "xpath=ancestor::div[contains(@class, 'jp-OutputArea-output')][1]"
    )
    control.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)
    before = output.screenshot()
    box = control.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2)
    for _ in range(20):
        page.wait_for_timeout(1500)
        if output.screenshot() != before:
            return True
    return False


def toured(page: Any, address: str, name: str) -> list[str]:
    """Run one notebook; print what it did and return what was wrong."""
    start, wrong = time.perf_counter(), list[str]()
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    open_notebook(page, f"{address}/lab/tree/{name}.ipynb")
    page.wait_for_timeout(
        3000
    )  # JupyterLab drops a click that comes before it is settled
    run_all(page)
    if not finished(page):
        wrong.append("cells still run after ten minutes")
    notebook = page.locator(f"{SHOWN} .jp-Notebook")
    errors = page.locator(f"{SHOWN} [data-mime-type='application/vnd.jupyter.stderr']")
    failed = page.locator(f"{SHOWN} .jp-RenderedText[data-mime-type*='error']")
    wrong += [f"cell: {text[-300:]}" for text in failed.all_inner_texts()]
    wrong += [f"raw markup: {m.group()}" for m in RAW.finditer(notebook.inner_text())]
    sliders = page.locator(f"{SHOWN} .jp-OutputArea-output .noUi-target:visible")
    boxes = page.locator(f"{SHOWN} .jp-OutputArea-output input[type=checkbox]:visible")
    moved = sum(reacts(page, sliders.nth(i)) for i in range(sliders.count()))
    ticked = sum(reacts(page, boxes.nth(i)) for i in range(boxes.count()))
    if moved < sliders.count():
        wrong.append(f"{sliders.count() - moved} sliders change nothing")
    viewers = page.locator(f"{SHOWN} .jp-OutputArea-output canvas").count()
    page.screenshot(path=PICTURES / f"{name}.png")
    print(
        f"{name}: {page.locator(CELL).count()} code cells, {len(wrong)} faults, "
        f"{errors.count()} warnings, {viewers} canvases, {moved} of {sliders.count()} "
        f"sliders and {ticked} of {boxes.count()} boxes react, "
        f"{time.perf_counter() - start:.0f} s",
        *wrong, sep="\n    ", flush=True,
    )  # fmt: skip
    return wrong


def main(names: list[str]) -> int:
    """Tour notebooks of notebooks/chapters by name; return the exit code."""
    before, wrong = tree(), list[str]()
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as where, sync_playwright() as driver:
        root = Path(where) / "chapters"
        shutil.copytree(CHAPTERS, root)
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with serving(root, Path(where)) as address:
            for name in names:
                page = chromium.new_page()
                wrong += toured(page, address, name)
                page.close()
        chromium.close()
    if tree() != before:
        wrong.append("the checkout has changed")
        print(wrong[-1], tree(), sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
