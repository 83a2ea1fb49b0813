"""Headless Chromium driven over its own pipe (the DevTools protocol), with the standard library only."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Chromium:
    """One browser process. Messages travel over file descriptors 3 and 4, each ended by a zero byte."""

    def __init__(self, binary: str) -> None:
        self.profile = tempfile.mkdtemp(prefix="pointlift-chromium-")
        to_read, self._to = os.pipe()
        self._from, from_write = os.pipe()
        # Chromium expects its ends at exactly 3 and 4; a shell moves them there, whatever numbers we got.
        script = f'exec 3<&{to_read} 4>&{from_write}; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", binary, *FLAGS, f"--user-data-dir={self.profile}"],
            pass_fds=(to_read, from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        self._rest, self._id = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, /, **params: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; events that arrive before it are kept in `events`."""
        self._id += 1
        message: dict[str, Any] = {"id": self._id, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self._id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def receive(self) -> dict[str, Any]:
        """The next message from the browser."""
        while b"\0" not in self._rest:
            chunk = os.read(self._from, 1 << 20)
            if not chunk:
                raise RuntimeError(f"Chromium ended (exit code {self.process.wait()})")
            self._rest += chunk
        line, self._rest = self._rest.split(b"\0", 1)
        return json.loads(line)

    def open(self, path: Path, *, width: int, height: int, dark: bool = False, still: bool = False) -> Page:
        """Load a local file at a screen size and colour scheme."""
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        page.call("Emulation.setEmulatedMedia", features=features)
        page.call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + 20
        while page.evaluate("document.readyState") != "complete" and time.monotonic() < deadline:
            time.sleep(0.02)
        return page

    def close(self) -> None:
        """End the browser and remove its profile."""
        self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self.profile, ignore_errors=True)


class Page:
    """One open page."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self.browser, self.target, self.session = browser, target, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One DevTools command to this page."""
        return self.browser.call(method, self.session, **params)

    def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"]))
        return result["result"].get("value")

    def key(self, name: str) -> None:
        """Press and release one key."""
        more: dict[str, Any] = {"Enter": {"text": "\r"}, "Escape": {"windowsVirtualKeyCode": 27}}.get(name, {})
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, code=name, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, code=name)

    def mouse(self, kind: str, x: float, y: float, button: str = "none") -> None:
        """One mouse event at a position of the viewport."""
        pressed = 1 if button == "left" else 0
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=pressed, clickCount=pressed)

    def picture(self, canvas: str) -> tuple[int, int]:
        """How many pixels of the canvas that a selector finds are drawn on, and a checksum of all of them."""
        look = """(c => {
          const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
          let [ink, sum] = [0, 0];
          data.forEach((v, k) => { sum = (sum * 31 + v * (k % 7)) % 1000003; if (k % 4 === 3 && v > 0) ink++; });
          return [ink, sum];
        })"""
        ink, checksum = self.evaluate(f"{look}(document.querySelector('{canvas}'))")
        return ink, checksum

    def wait(self, milliseconds: int = 250) -> None:
        """Let the page go on for a while."""
        self.evaluate(f"new Promise(done => setTimeout(() => done(1), {milliseconds}))")

    def problems(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and requests other than for the page itself."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        found = []
        for event in self.browser.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(json.dumps(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("file:", "data:")):
                found.append("request: " + params["request"]["url"])
        return found

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        """Write a PNG of the viewport, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """Close the page."""
        self.browser.call("Target.closeTarget", targetId=self.target)
