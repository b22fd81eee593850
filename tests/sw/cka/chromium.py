"""Headless Chromium, driven over its debugging pipe: opens a page at a width, asks it what overflows and what is missing."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "headless_shell")
HERE = Path(sys.prefix) / "bin"  # where `make browser` puts it
MISSING = (
    f"no headless Chromium shows a page ({', '.join(NAMES)}, or what the environment variable CHROMIUM names):"
    " run `make browser`"
)
INSPECT = """(() => {
  const shown = e => e.getClientRects().length > 0, width = document.documentElement.clientWidth;
  const scrolls = e => { for (; e; e = e.parentElement) if (getComputedStyle(e).overflowX === 'auto') return true; return false; };
  const all = [...document.body.querySelectorAll('*')];
  return {
    width, page: document.documentElement.scrollWidth,
    beyond: all.filter(e => shown(e) && !scrolls(e))
      .filter(e => e.getBoundingClientRect().right > width + 0.5 || e.getBoundingClientRect().left < -0.5)
      .map(e => e.tagName + '.' + e.className),
    images: [...document.images].map(
      i => ({ok: i.complete && i.naturalWidth > 0, alt: i.alt, width: i.getBoundingClientRect().width})),
    text: Math.min(...all.filter(e => e.innerText && shown(e)).map(e => parseFloat(getComputedStyle(e).fontSize))),
    outside: [...document.querySelectorAll('[src], link[href]')].map(e => e.src || e.href).filter(n => !n.startsWith('data:')),
  };
})()"""


def commands() -> Iterator[str]:
    """The browsers that are there, working or not."""
    names = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else NAMES
    return filter(None, (shutil.which(name, path=path) for path in (HERE, None) for name in names))


def find() -> str | None:
    """The command of the first browser that shows a page, or None."""
    return next(filter(works, commands()), None)


def works(command: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text("<!doctype html><p>text</p>")
        try:
            with Chromium(command) as browser:
                return browser.open(page, 1000)["width"] == 1000
        except (AssertionError, OSError):
            return False


class Chromium:
    """A browser without a window, as a context; `open` returns what INSPECT finds."""

    def __init__(self, command: str) -> None:
        self.command, self.number = command, 0

    def __enter__(self) -> "Chromium":
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self.pipe_in = os.pipe()
        self.pipe_out, from_browser = os.pipe()
        # The browser reads commands from descriptor 3 and writes answers to descriptor 4.
        shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                   "--remote-debugging-pipe", "--no-first-run", "--disable-extensions",
                   f"--user-data-dir={self.profile.name}")  # fmt: skip
        self.process = subprocess.Popen(
            ["bash", "-c", shell, self.command, *options],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.answers = os.fdopen(self.pipe_out, "rb")
        self.left = b""
        try:
            target = self.ask("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime"):
                self.ask(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.pipe_in)
        self.process.kill()
        self.process.wait()
        self.answers.close()
        self.profile.cleanup()

    def _read(self) -> dict:
        while b"\0" not in self.left:
            more = os.read(self.pipe_out, 1 << 20)
            assert more, f"{self.command} ended with {self.process.wait()}"
            self.left += more
        message, _, self.left = self.left.partition(b"\0")
        return json.loads(message)

    def ask(self, method: str, **params: object) -> dict:
        """A command of the DevTools protocol and its answer; events in between are dropped."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        text = json.dumps(message).encode() + b"\0"
        while text:
            text = text[os.write(self.pipe_in, text) :]
        while (answer := self._read()).get("id") != self.number:
            pass
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def open(self, page: Path, width: int, picture: Path | None = None) -> dict:
        """Loads a page into a window of `width` pixels; `picture` gets a PNG of all of it."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 800)
        went = self.ask("Page.navigate", url=page.resolve().as_uri())
        assert "errorText" not in went, went
        loaded = "document.readyState === 'complete' && location.href !== 'about:blank'"
        script = f"new Promise(done => {{ const ask = () => {loaded} ? done(1) : setTimeout(ask, 20); ask(); }})"
        self.ask("Runtime.evaluate", expression=script, awaitPromise=True)
        found = self.ask("Runtime.evaluate", expression=INSPECT, returnByValue=True)["result"]["value"]
        if picture:
            shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            picture.write_bytes(base64.b64decode(shot["data"]))
        return found
