"""Opens a page in headless Chromium and returns what a script of a test finds in it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

HELPERS = """
    const all = (selector, text = (e) => e.textContent) => [...document.querySelectorAll(selector)].map(text);
    const one = (selector) => document.querySelector(selector);
    const shows = (selector) => one(selector) !== null && one(selector).checkVisibility();
    const enter = (selector, value, kind) => {
        one(selector).value = value;
        one(selector).dispatchEvent(new Event(kind));
    };
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    const press = (key, on = document.activeElement || document.body) =>
        on.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
"""


def find_in_browser(page: str, folder: Path, script: str, *options: str, link: str = "") -> Any:
    """Returns what the body of an asynchronous JavaScript function returns on a page; skips without Chromium.

    An error in a script of the page fails the test.

    Args:
        script: it may use `HELPERS`.  Time passes at once where it waits.
        options: of the browser, such as `--window-size=420,900`.
        link: what stands behind `#` in the address.
    """
    if BROWSER is None:
        pytest.skip("no Chromium: apt install chromium")
    run = f"(async () => {{ {HELPERS} {script} }})()"
    told = "(found) => { document.body.dataset.found = JSON.stringify([found ?? null, faults]); }"
    watch = "<script>const faults = []; addEventListener('error', (event) => faults.push(event.message));</script>"
    probe = f"<script>{run}.then({told}, (error) => ({told})({{error: String(error.stack)}}));</script>"
    path = folder / "page.html"
    path.write_text(page.replace("<head>", "<head>" + watch).replace("</body>", probe + "</body>"), encoding="utf-8")
    address = f"{path.as_uri()}#{link}" if link else path.as_uri()
    settings = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--window-size=1280,900")
    done = subprocess.run(
        [BROWSER, *settings, *options, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r'data-found="(.*?)"', done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-2000:]
    value, faults = json.loads(html.unescape(found[1]))
    assert not faults, faults
    assert not (isinstance(value, dict) and "error" in value), value
    return value
