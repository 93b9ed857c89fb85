"""A headless Chromium for tests; without one they are skipped and say why."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


@contextlib.contextmanager
def open_chromium() -> Iterator[Any]:
    """Give playwright's browser."""
    reason = "needs playwright: pip install -e '.[browser]'"
    sync = pytest.importorskip("playwright.sync_api", reason=reason)
    if PROGRAM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=ARGUMENTS)
        yield browser
        browser.close()
