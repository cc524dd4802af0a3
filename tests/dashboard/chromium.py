"""A headless Chromium on trio, over its DevTools protocol.

It talks through two pipes (`--remote-debugging-pipe`: JSON, each message ended by a zero byte), so that a test and the
nodes that it looks at share one event loop and nothing has to be installed beside the browser. Bounded: every command
has TIMEOUT, and the browser ends with its block. It can't look up names, and reaches loopback alone.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests import required

TIMEOUT = 30.0
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--disable-features=Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--lang=en",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--window-size=1360,900",
)


def find(*, why: str) -> str:
    """The browser's program; without one the test ends, see tests/required.py."""
    return required.program("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", why=why)


class Page:
    """One tab. `errors`: what its console holds that a user would call an error; `requests`: URLs that it asked for."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.errors: list[str] = []
        self.requests: list[str] = []

    async def send(self, method: str, **params: Any) -> Any:
        """A command of the DevTools protocol."""
        return await self._browser.send(method, params, self._session)

    def told(self, method: str, params: Any) -> None:
        """An event of the protocol."""
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    async def open(self, url: str) -> None:
        """Goes there, and waits until the page is loaded; what it shows then is the test's to wait for."""
        answer = await self.send("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        await self.until("location.protocol !== 'about:' && document.readyState === 'complete'")

    async def run(self, code: str) -> Any:
        """What an expression of JavaScript, or its promise, gives."""
        answer = await self.send(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"].get("exception", {}).get("description", answer))
        return answer["result"].get("value")

    async def until(self, code: str, timeout: float = TIMEOUT) -> float:
        """Waits until an expression holds; the seconds that it took."""
        started = trio.current_time()
        with trio.move_on_after(timeout) as scope:
            while not await self.run(code):  # noqa: ASYNC110  the page sets no event of ours
                await trio.sleep(0.03)
        if scope.cancelled_caught:
            shown = await self.run("document.body.innerText.slice(0, 3000)")
            raise AssertionError(f"expected {code} within {timeout:g} s; errors: {self.errors}; page:\n{shown}")
        return trio.current_time() - started

    async def text(self, selector: str) -> str:
        return await self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    async def click(self, selector: str) -> None:
        """A real click at an element's middle."""
        where = json.dumps(selector)
        x, y = await self.run(
            f"(() => {{ const e = document.querySelector({where}); e.scrollIntoView({{block: 'center'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def key(self, name: str, *, shift: bool = False) -> None:
        """A key such as Tab, Enter, Escape."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowDown": 40, "End": 35}[name]
        text = {"Enter": "\r", " ": " "}.get(name, "")
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            await self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                code="Space" if name == " " else name,
                text=text if kind == "keyDown" else "",
                windowsVirtualKeyCode=code,
                modifiers=8 if shift else 0,
            )

    async def type(self, text: str) -> None:
        """Text into what has the focus."""
        await self.send("Input.insertText", text=text)

    async def look(self, *, width: int = 1360, height: int = 900, dark: bool = False, calm: bool = False) -> None:
        """The window, and what the user prefers."""
        phone = width < 600
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        features = {"prefers-color-scheme": "dark" if dark else "light"}
        features["prefers-reduced-motion"] = "reduce" if calm else "no-preference"
        given = [{"name": name, "value": value} for name, value in features.items()]
        await self.send("Emulation.setEmulatedMedia", features=given)

    async def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """A PNG of the page, or of what is in the window."""
        if whole:
            await self.run("scrollTo(0, 0)")
        answer = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        if whole:
            size = (await self.send("Page.getLayoutMetrics"))["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 8000), "scale": 1}
            answer = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        await trio.Path(file).write_bytes(base64.b64decode(answer["data"]))


class Browser:
    """A running Chromium."""

    def __init__(self, to: trio.lowlevel.FdStream, back: trio.lowlevel.FdStream) -> None:
        self._to, self._from = to, back
        self._numbers = itertools.count(1)
        self._answers: dict[int, trio.MemorySendChannel[Any]] = {}
        self._pages: dict[str, Page] = {}
        self._sending = trio.Lock()

    async def read(self) -> None:
        """Hands on what comes, until the browser ends."""
        data = b""
        while part := await self._from.receive_some(1 << 16):
            *messages, data = (data + part).split(b"\0")
            for message in map(json.loads, messages):
                if channel := self._answers.pop(message.get("id", 0), None):
                    channel.send_nowait(message)
                elif page := self._pages.get(message.get("sessionId", "")):
                    page.told(message["method"], message.get("params", {}))

    async def send(self, method: str, params: Any = None, session: str | None = None) -> Any:
        """A command, and its answer. Raises AssertionError for an error."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session
        put, take = trio.open_memory_channel[Any](1)
        self._answers[number] = put
        with trio.fail_after(TIMEOUT):
            async with self._sending:
                await self._to.send_all(json.dumps(message).encode() + b"\0")
            answer = await take.receive()
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    @asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        """A tab of its own, with storage of its own."""
        context = (await self.send("Target.createBrowserContext"))["browserContextId"]
        target = await self.send("Target.createTarget", {"url": "about:blank", "browserContextId": context})
        attached = await self.send("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.send(f"{domain}.enable")
        await page.look()
        yield page
        await self.send("Target.disposeBrowserContext", {"browserContextId": context})


@asynccontextmanager
async def chromium(program: str) -> AsyncIterator[Browser]:
    """A browser with a profile that is thrown away."""
    to_child, to = os.pipe()
    back, from_child = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [*FLAGS, f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # its sandbox refuses root; the page is the project's own
        # it reads from descriptor 3 and writes to 4
        script = f'exec "$@" 3</proc/self/fd/{to_child} 4>/proc/self/fd/{from_child}'
        process = subprocess.Popen(  # noqa: ASYNC220  it only starts
            ["nice", "sh", "-c", script, "sh", program, *flags, "about:blank"],
            pass_fds=(to_child, from_child),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "HOME": profile, "XDG_CONFIG_HOME": profile, "XDG_CACHE_HOME": profile},
        )
        os.close(to_child)
        os.close(from_child)
        try:
            async with trio.lowlevel.FdStream(to) as out, trio.lowlevel.FdStream(back) as coming:
                browser = Browser(out, coming)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(browser.read)
                    yield browser
                    nursery.cancel_scope.cancel()
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with its helpers, which are its session's
            process.wait()
