"""Make the pictures of the manual, of real runs, in headless Chromium: `python docs/screenshots.py [--run RUN --sweep SWEEP]`.

The overview shows a small run, which is trained first in a temporary folder. The pictures of a report and of a sweep are those of
the tutorial (docs/tutorial.md): RUN and SWEEP, without which they stay as they are. Chromium is looked for on the PATH
(`apt-get install chromium`). Pictures are WebP files in docs/pictures, in light and dark.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).resolve().parent / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
RUN = ("optimizer=nesterov", "lr=0.05", "model=cnn", "augmentation=[shift]", "epochs=12")
OVERVIEW = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; padding: 36px; background: #e9eef0; display: flex; gap: 32px; height: calc(100vh - 72px); font: 15px system-ui; }
.window { border-radius: 10px; overflow: hidden; box-shadow: 0 10px 40px #0003; background: #fff; }
.window::before { content: "● ● ●"; display: block; padding: 8px 14px; letter-spacing: 3px; font-size: 11px; color: #9aa5a8; background: #dde4e6; }
.terminal { flex: 0 0 950px; background: #14181c; } .terminal::before { background: #22282e; }
pre { margin: 0; padding: 20px 22px; color: #d6dde0; font: 11.9px/1.9 ui-monospace, "DejaVu Sans Mono", monospace; }
b { color: #5cc4c9; font-weight: 500; } i { color: #7cc98a; font-style: normal; }
.report { flex: 1; } img { width: 100%%; display: block; }
</style><div class="window terminal"><pre>%s</pre></div><div class="window report"><img src="%s"></div>"""


def shoot(page: Path, picture: Path, size: tuple[int, int], dark: bool = False) -> None:
    """Write a PNG of the top of a page."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit("No Chromium on the PATH. Type: apt-get install -y chromium")
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=4000",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--force-device-scale-factor=1",
         f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}", page.resolve().as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def keep(picture: Path, name: str, width: int = 1200) -> None:
    """Write a picture as WebP, scaled to a width."""
    with Image.open(picture) as image:
        height = round(image.height * width / image.width)
        image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(
            PICTURES / f"{name}.webp", quality=82, method=6
        )


def terminal(command: str, output: str) -> str:
    """Return what a terminal shows as HTML: the command in one color, marks of success in another."""
    text = html.escape("\n".join(line[:132] for line in output.strip("\n").splitlines()))
    text = re.sub(r"✓|\bbest\b(?=$)", lambda found: f"<i>{found[0]}</i>", text, flags=re.MULTILINE)
    return f"$ <b>{html.escape(command)}</b>\n{text}"


def dltrain(*arguments: str, folder: Path) -> str:
    """Run a command in a folder, and return what it prints."""
    environment = os.environ | {"COLUMNS": "110", "PYTHONPATH": str(PICTURES.parents[1])}
    command = [sys.executable, "-m", "dltrain", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def newest(folder: Path) -> Path:
    return max((folder / "outputs").glob("*/*"), key=lambda path: path.stat().st_mtime)


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--sweep", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        said = dltrain(*RUN, folder=work)
        run = newest(work)
        for one in (run, *([asked.run] if asked.run else [])):
            # in its project, so that the commands in the report have short paths
            project = one.resolve().parents[2]
            dltrain("report", str(one.resolve().relative_to(project)), "--samples", folder=project)
        shoot(run / "report.html", work / "report.png", (1200, 1500))
        for folder, what, size in ((asked.run, "report", (1200, 1500)), (asked.sweep, "sweep", (1200, 1500))):
            for dark in (False, True) if folder else ():
                shoot(folder / "report.html", work / "page.png", size, dark)
                keep(work / "page.png", f"{what}-{'dark' if dark else 'light'}")
        (work / "overview.html").write_text(
            OVERVIEW % (terminal("dltrain " + " ".join(RUN), said), "report.png"), encoding="utf-8"
        )
        shoot(work / "overview.html", work / "page.png", (1600, 800))
        keep(work / "page.png", "overview", 1400)


if __name__ == "__main__":
    main()
