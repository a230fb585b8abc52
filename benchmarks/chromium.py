"""The page of a live decoder in Chromium, for benchmarks, tests and pictures."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """The path of Chromium; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Starts Chromium; yields it as `playwright` has it.

    Raises:
        ImportError: `playwright` is not installed.
        FileNotFoundError: there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    path = program()
    if path is None:
        raise FileNotFoundError("there is no Chromium; on Debian: apt-get install chromium")
    with sync_playwright() as play:
        # As root, in a container, it has no sandbox; it opens pages of this machine alone.
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Any, url: str, *, dark: bool = False) -> tuple[Any, list[str]]:
    """Opens a page; returns it, and the errors that its console shows from now on."""
    scheme = "dark" if dark else "light"
    page = browser.new_page(color_scheme=scheme, viewport={"width": 1280, "height": 1000})
    errors: list[str] = []
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    return page, errors
