"""Chromium without a window, driven by its own protocol: what a page shows, runs and requests."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


class Browser:
    """Headless Chromium, driven by its own protocol through pipes (file descriptors 3 and 4)."""

    def __init__(self, profile: Path):
        to_read, self.to_browser = os.pipe()
        self.from_browser, to_write = os.pipe()
        # a high number first: the pipe's own ends may be 3 or 4
        command = f'exec 8<&{to_read} 9>&{to_write}; exec 3<&8 4>&9; exec "$@"'
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={profile}",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            ["bash", "-c", command, "bash", str(CHROMIUM), *flags],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.events: list[dict[str, Any]] = []
        self.buffer = b""
        self.last_id = 0
        self.new_tab()

    def new_tab(self) -> None:
        """Another tab, where everything is done from now on; `session` names it."""
        target = self.call("Target.createTarget", url="about:blank", session=None)["targetId"]
        self.session: str = self.call(
            "Target.attachToTarget", targetId=target, flatten=True, session=None
        )["sessionId"]  # fmt: skip
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, session: str | None = "page", **params: Any) -> dict[str, Any]:
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": params}
        if session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.last_id:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            part = os.read(self.from_browser, 1 << 20)
            assert part, "Chromium has ended"
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path, width: int) -> None:
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1,
            mobile=width < 600,
        )  # fmt: skip
        self.call("Page.navigate", url=page.as_uri())
        self.evaluate(
            "new Promise(r => document.readyState === 'complete' ? r() : addEventListener('load', r))"
            ".then(() => 0)"
        )
        time.sleep(0.2)  # whatever would start late
        self.evaluate("0")

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def click(self, selector: str) -> None:
        """As a mouse does it, in the middle of the element."""
        place = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            where = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **where)

    def press_tab(self) -> str:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Tab", windowsVirtualKeyCode=9)
        return self.evaluate("document.activeElement.outerHTML.slice(0, 120)")

    def requests(self) -> list[str]:
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[Any]:
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event["method"] in kinds]

    def close(self) -> None:
        self.call("Browser.close", session=None)
        os.close(self.to_browser)
        os.close(self.from_browser)
        self.process.wait(timeout=30)
