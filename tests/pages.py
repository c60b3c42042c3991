"""What the tests of reports share: the data in a page, and what headless Chromium draws of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import IO, Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
# a page is drawn some frames after it is read
DRAWN = """new Promise((done) => { const after = (frames) => requestAnimationFrame(() => frames ? after(frames - 1) : done());
document.readyState === "complete" ? after(10) : addEventListener("load", () => after(10)); })"""
in_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
# notes each chart as uPlot gets it, says in the page what stands in it and how many pixels of its canvas are painted, and presses all keys
NOTED = """{ const real = uPlot; window.made = []; window.failed = [];
window.addEventListener("error", (event) => window.failed.push(event.message));
uPlot = function (options, data, place) { const made = new real(options, data, place); window.made.push(made); return made; };
Object.assign(uPlot, real); }"""
TOLD = """(() => { const painted = ({ctx}) =>
ctx.getImageData(0, 0, ctx.canvas.width, ctx.canvas.height).data.reduce((n, v, i) => n + (i % 4 === 3 && v > 0), 0);
const told = window.made.map((u) => ({ title: u.root.closest("figure").querySelector("b")?.textContent, data: u.data,
  painted: painted(u), axes: u.axes.map((axis) => axis._values) }));
for (const plot of document.querySelectorAll(".plot")) {
  for (const key of ["ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "End", "+", "-", "0", "l", "l", "Home", "Escape"])
    plot.dispatchEvent(new KeyboardEvent("keydown", { key }));
  plot.querySelector(".u-over").dispatchEvent(new MouseEvent("dblclick"));
}
return [told, window.failed]; })()"""
# says of each box that can scroll whether it has more than it shows, and whether it says so; and the width of all
BOXES = """(() => { const boxes = [...document.querySelectorAll("section.card, .scroll")].map((box) =>
[box.scrollWidth > box.clientWidth + 1, getComputedStyle(box, "::before").content.includes("scroll sideways")]);
return [boxes, innerWidth, document.documentElement.scrollWidth]; })()"""


def data_in(page: str) -> dict[str, Any]:
    """Return the data that a page holds for its script."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def drawn(page: str, folder: Path) -> list[dict[str, Any]]:
    """Return title, data, labels of the axes and number of painted pixels of each chart in a browser, where no key may lead to an error."""
    page = re.sub(r"<meta http-equiv[^>]*>", "", page)
    assert page.count('"use strict";\n') == 1
    page = page.replace('"use strict";\n', f'{NOTED}\n"use strict";\n')
    found: list[dict[str, Any]]
    found, failed = told(page, TOLD, folder)
    assert failed == []
    return found


def boxes(page: str, folder: Path) -> list[tuple[bool, bool]]:
    """Return whether each box of a page overflows and whether it says so, in a narrow window."""
    found, width, content = told(page, BOXES, folder, "--window-size=400,900")
    assert content <= width <= 600
    return [(bool(overflows), bool(says)) for overflows, says in found]


def told(page: str, question: str, folder: Path, *options: str) -> Any:
    """Return the value of a JavaScript expression in a page that a browser has drawn.

    The browser is driven by its DevTools protocol over a pipe: `--dump-dom` with a budget of virtual time dumps the page
    before its timers and frames where the machine is busy.
    """
    file = folder / "drawn.html"
    file.write_text(page)
    (read, answers), (questions, write) = os.pipe(), os.pipe()
    # the browser reads commands at 3 and writes answers at 4
    command = ["bash", "-c", f'exec "$@" 3<&{questions} 4>&{answers}', "bash", str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu",
               f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe", *options]  # fmt: skip
    browser = subprocess.Popen(
        command, pass_fds=(questions, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    watchdog = threading.Timer(100, browser.kill)
    watchdog.start()
    os.close(questions), os.close(answers)
    try:
        with open(read, "rb") as stream, open(write, "wb", buffering=0) as sink:
            return Page(stream, sink, file.as_uri()).value(f"{DRAWN}.then(() => {question})")
    finally:
        watchdog.cancel()
        browser.kill()
        browser.wait()


class Page:
    """A page that is open in a browser, by its DevTools protocol."""

    def __init__(self, stream: IO[bytes], sink: IO[bytes], address: str) -> None:
        self.stream, self.sink, self.number = stream, sink, 0
        self.session: dict[str, str] = {}
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = {
            "sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        }
        self.ask("Page.enable")
        self.ask("Page.navigate", url=address)
        while self.message().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """Return the value of an expression, which may be a promise."""
        found = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"]["value"]

    def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer of a command."""
        self.number += 1
        self.sink.write(
            json.dumps({"id": self.number, "method": method, "params": arguments, **self.session}).encode()
            + b"\0"
        )
        while (answer := self.message()).get("id") != self.number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def message(self) -> dict[str, Any]:
        """Return the next message of the browser."""
        text = bytearray()
        while (byte := self.stream.read(1)) != b"\0":
            assert byte, f"the browser ended after {bytes(text[:200])!r}"
            text += byte
        message: dict[str, Any] = json.loads(text)
        return message
