"""Pages in headless Chromium, with a record of what they request and complain about."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

ARGUMENTS = (
    "--no-sandbox",
    # WebGL on the CPU
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--no-first-run",
)
NO_WEBGL = "HTMLCanvasElement.prototype.getContext = new Proxy(\
HTMLCanvasElement.prototype.getContext, {apply: (get, canvas, [kind, ...more]) =>\
kind.startsWith('webgl') ? null : Reflect.apply(get, canvas, [kind, ...more])});"
"""A script that takes WebGL from a page."""
WINDOW = {"width": 920, "height": 1600}
"""So high that nothing is scrolled when a test points at it or takes a picture."""
TIMEOUT_MILLISECONDS = 120_000
"""Long, because other tests may use all cores."""


@dataclass(kw_only=True)
class OpenPage:
    """A page and what has happened in it."""

    page: object
    """playwright's Page."""
    requests: list[str] = field(default_factory=list)
    """URLs."""
    problems: list[str] = field(default_factory=list)
    """Messages of the console except information, and errors."""

    def select(self, chain: str) -> None:
        """Select a chain by a click on its name."""
        self.page.get_by_role("button", name=chain, exact=True).click()

    def wait_for_view(self) -> None:
        """Wait until the structure of the selected chain is drawn."""
        self.page.wait_for_selector("#view[data-state=ready]")

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return self.page.locator(selector).inner_text()

    def names(self) -> list[str]:
        """Return the names in the table from top to bottom."""
        return self.page.locator("#chain-table tbody th").all_inner_texts()

    def pixels(self, selector: str) -> np.ndarray:
        """Return a screenshot of an element as uint8 [height, width, 3]."""
        picture = self.page.locator(selector).screenshot()
        return (
            (matplotlib.image.imread(io.BytesIO(picture))[..., :3] * 255).round().astype(np.uint8)
        )

    def point_at(self, selector: str, x: float, y: float) -> None:
        """Move the mouse to a place in an element, in pixels from its upper left corner."""
        box = self.page.locator(selector).bounding_box()
        self.page.mouse.move(box["x"] + x, box["y"] + y)

    def next_frame(self) -> None:
        """Wait until what was requested is drawn."""
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))"
        )


@contextmanager
def chromium() -> Iterator[object]:
    """Start a browser; skip the test if playwright or Chromium is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no program chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def open_page(
    browser: object, path: Path, *, script: str | None = None, **options: object
) -> Iterator[OpenPage]:
    """Open a file. script: runs before those of the page. options: of the browser context."""
    context = browser.new_context(viewport=WINDOW, **options)
    context.set_default_timeout(TIMEOUT_MILLISECONDS)
    if script is not None:
        context.add_init_script(script)
    opened = OpenPage(page=context.new_page())
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.page.on(
        "console",
        lambda message: (
            opened.problems.append(message.text) if message.type in ("warning", "error") else None
        ),
    )
    opened.page.goto(path.as_uri())
    yield opened
    context.close()


def count_of_color(pixels: np.ndarray, color: tuple[int, int, int], *, within: int = 40) -> int:
    """Return how many pixels are within a distance of a color in every channel."""
    difference = np.abs(pixels.astype(int) - color)
    return int((difference.max(axis=-1) <= within).sum())
