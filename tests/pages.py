"""What the tests of reports share: the data in a page, and what headless Chromium draws of them."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
# notes each chart as uPlot gets it, says in the page what stands in it and how many pixels of its canvas are painted, and presses all keys
NOTED = """{ const real = uPlot; window.made = []; window.failed = [];
window.addEventListener("error", (event) => window.failed.push(event.message));
uPlot = function (options, data, place) { const made = new real(options, data, place); window.made.push(made); return made; };
Object.assign(uPlot, real); }"""
TOLD = """<script>setTimeout(() => { const painted = ({ctx}) =>
ctx.getImageData(0, 0, ctx.canvas.width, ctx.canvas.height).data.reduce((n, v, i) => n + (i % 4 === 3 && v > 0), 0);
const told = window.made.map((u) => ({ title: u.root.closest("figure").querySelector("b")?.textContent, data: u.data,
  painted: painted(u), axes: u.axes.map((axis) => axis._values) }));
for (const plot of document.querySelectorAll(".plot")) {
  for (const key of ["ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "End", "+", "-", "0", "l", "l", "Home", "Escape"])
    plot.dispatchEvent(new KeyboardEvent("keydown", { key }));
  plot.querySelector(".u-over").dispatchEvent(new MouseEvent("dblclick"));
}
document.body.setAttribute("data-told", JSON.stringify([told, window.failed])); }, 1000)</script></body>"""


# says of each box that can scroll whether it has more than it shows, and whether it says so; and the width of all
BOXES = """<script>setTimeout(() => { const boxes = [...document.querySelectorAll("section.card, .scroll")].map((box) =>
[box.scrollWidth > box.clientWidth + 1, getComputedStyle(box, "::before").content.includes("scroll sideways")]);
document.body.setAttribute("data-told", JSON.stringify([boxes, innerWidth, document.documentElement.scrollWidth])); }, 1500)</script></body>"""


def data_in(page: str) -> dict[str, Any]:
    """Return the data that a page holds for its script."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def drawn(page: str, folder: Path) -> list[dict[str, Any]]:
    """Return title, data, labels of the axes and number of painted pixels of each chart in a browser, where no key may lead to an error."""
    page = re.sub(r"<meta http-equiv[^>]*>", "", page)
    assert page.count('"use strict";\n') == 1
    page = page.replace('"use strict";\n', f'{NOTED}\n"use strict";\n').replace("</body>", TOLD)
    found: list[dict[str, Any]]
    found, failed = told(page, folder)
    assert failed == []
    return found


def boxes(page: str, folder: Path) -> list[tuple[bool, bool]]:
    """Return whether each box of a page overflows and whether it says so, in a narrow window."""
    page = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", BOXES)
    found, width, content = told(page, folder, "--window-size=400,900")
    assert content <= width <= 600
    return [(bool(overflows), bool(says)) for overflows, says in found]


def told(page: str, folder: Path, *options: str) -> Any:
    """Return what a page in a browser says in `data-told`."""
    file = folder / "drawn.html"
    file.write_text(page)
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
               "--virtual-time-budget=3000", *options, "--dump-dom", file.as_uri()]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    (text,) = re.findall(r'data-told="([^"]*)"', dom)
    return json.loads(html.unescape(text))
