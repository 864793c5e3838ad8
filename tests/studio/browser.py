"""Headless Chromium, driven over its debugging pipe, without further packages."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 20.0


def find_browser() -> str:
    """Return the program; empty if none is installed."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), "")


class Browser:
    """One page of a browser, as a context manager.

    ``width`` and ``height`` are in CSS pixels. ``errors`` collects messages of its console and
    errors of its scripts.
    """

    def __init__(self, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        self.errors: list[str] = []
        self._size, self._dark = (width, height), dark
        self._number = 0
        self._buffer = b""

    def __enter__(self) -> Self:
        self._folder = tempfile.mkdtemp(prefix="rootstock-browser-")
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The browser reads descriptor 3 and writes descriptor 4.
        command = (
            f'exec "$0" --headless=new --no-sandbox --disable-gpu --hide-scrollbars '
            f"--remote-debugging-pipe --no-first-run --disable-extensions --disable-dev-shm-usage "
            f'--disable-background-networking --user-data-dir="$1" about:blank '
            f"3<&{to_browser} 4>&{from_browser}"
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command, find_browser(), self._folder],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._session = ""
        targets = self._ask("Target.getTargets")["targetInfos"]
        page = next(one for one in targets if one["type"] == "page")
        attached = self._ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")
        self.resize(*self._size, dark=self._dark)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._folder, ignore_errors=True)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the page, and whether it is dark."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[theme])

    def open(self, address: str) -> None:
        """Open a URL."""
        self._ask("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """Return the value of an expression, awaiting a promise."""
        found = self._ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"]["exception"].get("description", found))
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = SECONDS) -> Any:
        """Return the value of an expression once it is true; until then it may fail."""
        end = time.monotonic() + seconds
        patient = (
            f"(() => {{ try {{ const found = ({script}); "
            "return found instanceof Node ? !!found : found; } catch { return null; } })()"
        )
        while not (value := self.run(patient)):
            if time.monotonic() > end:
                text = self.run("document.body.innerText")
                raise AssertionError(f"{script} is not true; {self.errors}; the page says: {text}")
            time.sleep(0.05)
        return value

    def click(self, selector: str) -> None:
        """Click the middle of an element."""
        box = self.wait(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            "if (!one) return null; one.scrollIntoView({block: 'nearest'});"
            "const box = one.getBoundingClientRect();"
            "return box.width ? [box.x + box.width / 2, box.y + box.height / 2] : null; })()"
        )
        self.drag([tuple(box)])

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Press at the first point, move through the others, and release at the last."""
        self._mouse("mouseMoved", points[0])
        self._mouse("mousePressed", points[0])
        for point in points[1:]:
            self._mouse("mouseMoved", point)
        self._mouse("mouseReleased", points[-1])

    def _mouse(self, kind: str, point: tuple[float, float]) -> None:
        pressed = (
            {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {"button": "left"}
        )
        self._ask("Input.dispatchMouseEvent", type=kind, x=point[0], y=point[1], **pressed)

    def press(self, *keys: str) -> None:
        """Press keys one after another; single characters are typed."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
            self._ask("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
            self._ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def type(self, text: str) -> None:
        """Type a text into the focused element."""
        self._ask("Input.insertText", text=text)

    def photograph(self, path: Path) -> None:
        """Write a picture of the page as PNG."""
        picture = self._ask("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(picture))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']['message']}")
                found: dict[str, Any] = answer["result"]
                return found
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 16)
            if not part:
                raise AssertionError("the browser has ended")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        facts = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = facts["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.errors.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")
