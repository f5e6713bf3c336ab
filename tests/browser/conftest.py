"""A headless Chromium that may reach nothing but files and this machine."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = os.environ.get("MATDESIGN_CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--headless --no-sandbox --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-gl=angle --use-angle=swiftshader "
    "--enable-unsafe-swiftshader"
).split()
LOCAL = ("file:", "data:", "blob:", "about:", "http://127.0.0.1", "ws://127.0.0.1")


@dataclass
class Browser:
    """One page, with everything it tried to load from outside and every error it had."""

    page: Any
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def pixels(self, selector: str, nth: int = 0) -> Any:
        """Return what is seen at a selector once it stands still, (height, width, 3).

        A viewer first draws coarsely and smooths its edges 0.5 s after nothing moves: two
        pictures nearer in time could both be coarse.
        """
        before = self._shot(selector, nth)
        for _ in range(20):
            self.page.wait_for_timeout(600)
            after = self._shot(selector, nth)
            if before.shape == after.shape and abs(before - after).max() < 10:
                return after
            before = after
        return before

    def _shot(self, selector: str, nth: int) -> Any:
        import io

        import numpy as np
        from PIL import Image

        shot = self.page.locator(selector).nth(nth).screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def clean(self) -> None:
        """Assert that nothing was fetched from outside and nothing failed."""
        assert self.outside == []
        assert self.errors == []


def _missing() -> str:
    if shutil.which(CHROMIUM) is None:
        return f"no Chromium at {CHROMIUM}; set MATDESIGN_CHROMIUM to one"
    try:
        import playwright  # noqa: F401
    except ModuleNotFoundError:
        return "playwright is not installed"
    return ""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if problem := _missing():
        if os.environ.get("MATDESIGN_REQUIRE_BROWSER") == "1":
            pytest.fail(problem)
        pytest.skip(problem)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Browser]:
    page = chromium.new_page(viewport={"width": 560, "height": 800})
    seen = Browser(page)

    def gate(route: Any) -> None:
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            seen.outside.append(route.request.url)
            route.abort()

    page.route("**/*", gate)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    yield seen
    page.close()
