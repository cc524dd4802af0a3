"""The HTTP API as an ASGI app: the rules first, then the route's function, its answer or error in JSON.

    200  the function's struct        4xx  {"error": {"code", "message"}}: the asker's fault, and what was expected
                                      502  a peer's, or the network's;  500  ours: the log has it, the answer doesn't

Nothing that a function raises gets out of here, and no answer holds a traceback. Each connection has one request at a
time; how many connections there are is `serve`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.staticfiles import StaticFiles

from node import errors
from node.api import functions, operate
from node.api.feed import feed_of, kinds_of
from node.api.http.connection import error_body
from node.api.http.guard import Access, Asked, Guard, Places, Rates, Refusal
from node.api.http.openapi import document
from node.api.http.routes import ROUTES, ApiRoute
from node.api.http.stream import Numbered, happenings, pinging
from node.errors import UsageError, VouchError
from node.log import get_logger
from node.node import Node

BODY_TIMEOUT = 10.0
DASHBOARD = Path(__file__).parent / "dashboard"
# the page is one file and what lies beside it; nothing comes from anywhere else, and nobody frames it
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
STATUS: dict[type[VouchError], tuple[int, str]] = {
    errors.NotConnectedError: (404, "not_connected"),
    errors.NotFoundError: (404, "not_found"),
    errors.LimitError: (429, "limit"),
    errors.BackoffError: (409, "backoff"),
    errors.BannedError: (409, "banned"),
    errors.RefusedError: (502, "refused"),
    errors.DialError: (502, "dial"),
    errors.TooSlowError: (504, "timeout"),
    UsageError: (400, "usage"),
}

log = get_logger("api")

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Endpoint = Callable[[Request, Receive, Send], Awaitable[None]]


class RefusedError(Exception):
    """A request that isn't answered, and why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Api:
    """The app of one node. An ASGI app for HTTP alone; it takes no lifespan."""

    def __init__(
        self,
        node: Node,
        guard: Guard,
        *,
        rates: Rates | None = None,
        listeners: Places | None = None,
        dashboard: Path = DASHBOARD,
    ) -> None:
        config = node.config
        self.node, self.guard = node, guard
        self.rates = rates if rates is not None else Rates(config.max_api_rate)
        self.listeners = listeners or Places(config.max_api_listeners, "max_api_listeners")
        self.requests = 0
        self._document = msgspec.json.encode(document())
        self._access: dict[int, Access] = {}
        self._costs: dict[int, float] = {}
        self._routes: list[BaseRoute] = []
        for route in ROUTES:
            made = self._add(route.method, route.path, route.access, self._endpoint(route))
            self._costs[id(made)] = route.cost
        for path, access, endpoint in (
            ("/health", "open", self._health),
            ("/ready", "read", self._ready),
            ("/metrics", "read", self._metrics),
            ("/openapi.json", "read", self._openapi),
        ):
            self._add("GET", path, access, endpoint)  # type: ignore[arg-type]
        # what isn't one of these is no file of the page, and needs the token where everything else does
        self._files = {"/", *(f"/{file.relative_to(dashboard)}" for file in dashboard.rglob("*") if file.is_file())}
        if dashboard.is_dir():
            mount = Mount("/", app=StaticFiles(directory=dashboard, html=True))
            self._access[id(mount)] = "open"
            self._routes.append(mount)

    def _add(self, method: str, path: str, access: Access, endpoint: Endpoint) -> Route:
        route = Route(path, endpoint=_Asgi(endpoint), methods=[method])
        self._access[id(route)] = access
        self._routes.append(route)
        return route

    # requests

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"expected a request of HTTP, got {scope['type']}")
        self.requests += 1
        begun = False

        async def send_on(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", ()), *HEADERS, *_caching(message)]
            await send(message)

        try:
            await self._answer(scope, receive, send_on)
        except Exception as error:  # whatever it is, the client learns no more of it than `_refusal` says
            if begun:
                raise
            await _refuse(self._refusal(error, scope), scope, receive, send_on)

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        client = scope["client"][0] if scope.get("client") else ""
        route, child, allowed = self._match(scope)
        reads = scope["method"] in ("GET", "HEAD")
        access = self._access[id(route)] if route is not None else "read" if reads else "change"
        asked = Asked(_headers(scope), access)
        foreign = self.guard.foreign(asked)
        whose = f"{client} foreign" if foreign is not None else client
        limited = self.rates.take(whose, trio.current_time(), self._costs.get(id(route), 1.0))
        refusal = limited or foreign or self.guard.unfit(asked)
        if refusal is not None:
            self.guard.count(refusal)
            raise RefusedError(refusal)
        if route is None:
            raise RefusedError(_no_route(scope, allowed))
        scope.update(child)
        if isinstance(route, Mount) and not reads:
            raise RefusedError(_no_route(scope, {"GET", "HEAD"}))
        try:
            await route.handle(scope, receive, send)
        except Exception as error:  # all but one kind go on; starlette's classes aren't asked for what isn't theirs
            if getattr(error, "status_code", None) == 404:  # of the static files
                raise RefusedError(_no_route(scope, set())) from None
            raise

    def _match(self, scope: Any) -> tuple[BaseRoute | None, Any, set[str]]:
        """The route, what it found in the path, and without one the methods that there would be."""
        allowed: set[str] = set()
        for route in self._routes:
            if isinstance(route, Mount) and scope["path"] not in self._files:
                continue
            match, child = route.matches(scope)
            if match is Match.FULL and not (isinstance(route, Mount) and allowed):
                return route, child, allowed
            if match is Match.PARTIAL and isinstance(route, Route):
                allowed |= route.methods or set()
        return None, {}, allowed

    def _refusal(self, error: Exception, scope: Any) -> Refusal:
        """What an error is to who asked."""
        if isinstance(error, RefusedError):
            return error.refusal
        if isinstance(error, VouchError):
            for kind, (status, code) in STATUS.items():
                if isinstance(error, kind):
                    return Refusal(status, code, str(error))
            return Refusal(502, "failed", str(error))
        log.error("api_failed", path=scope["path"], exc_info=error)
        return Refusal(500, "internal", "the node failed to answer, which is a fault of its own: its log has more")

    # endpoints

    def _endpoint(self, route: ApiRoute) -> Endpoint:
        async def answer(request: Request, receive: Receive, send: Send) -> None:
            params = await self._params(route, request, receive)
            result = await functions.invoke(self.node, route.call, params)
            await _json(request.scope, receive, send, msgspec.json.encode(result))

        async def listen(request: Request, receive: Receive, send: Send) -> None:
            params = await self._params(route, request, receive)
            client = request.client.host if request.client else ""
            refusal = self.listeners.take(client)
            if refusal is not None:
                raise RefusedError(refusal)
            try:
                await self._listen(route, params, request, send)
            finally:
                self.listeners.leave(client)

        return listen if route.stream else answer

    async def _listen(self, route: ApiRoute, params: Any, request: Request, send: Send) -> None:
        begun = False

        async def write(data: bytes) -> None:
            nonlocal begun
            if not begun:  # not before the function has said that it can
                begun = True
                headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"connection", b"close")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": data, "more_body": True})

        if request.method == "HEAD":
            await write(b"")
        elif route.call == "events":
            kinds, feed = kinds_of(params["kinds"]), feed_of(self.node)
            after = feed.since(request.headers.get("last-event-id", ""))
            async with pinging(write):
                await happenings(feed, after, kinds, write)
        else:
            items = Numbered(write)
            first, rest = trio.Event(), self.node.config.max_api_queue

            async def tell(item: msgspec.Struct) -> None:
                await items.tell(item)
                first.set()

            async with trio.open_nursery() as nursery:

                async def ping() -> None:
                    await first.wait()
                    async with pinging(write):
                        await trio.sleep_forever()

                nursery.start_soon(ping)
                try:
                    await functions.stream(self.node, route.call, params, tell, max_waiting=rest)
                except Exception as error:  # kept until the nursery has ended, which would wrap it in a group
                    failure: Exception | None = error
                else:
                    failure = None
                nursery.cancel_scope.cancel()
            if failure is not None:
                raise failure
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _params(self, route: ApiRoute, request: Request, receive: Receive) -> dict[str, Any]:
        """The parameters from path, query and body. Raises RefusedError, UsageError."""
        params: dict[str, Any] = dict(request.path_params)
        given = request.query_params
        for name in given:
            if name not in route.query:
                expected = f"among {', '.join(route.query)}" if route.query else "none"
                raise UsageError(f"expected parameters in the query {expected}, got {name[:64]!a}")
        for name in route.query:
            values, kind = given.getlist(name), route.types[name].type
            if kind == list[str]:
                params[name] = [text for value in values for text in value.split(",") if text]
            elif len(values) > 1:
                raise UsageError(f"expected the parameter {name} once, got it {len(values)} times")
            elif values:
                try:
                    params[name] = msgspec.convert(values[0], kind, strict=False)
                except msgspec.ValidationError as error:
                    raise UsageError(f"{name}: {error}") from None
        if route.body is not None:
            params |= await self._body(request, receive)
        return params

    async def _body(self, request: Request, receive: Receive) -> dict[str, Any]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        data = bytearray()
        with trio.move_on_after(BODY_TIMEOUT) as timed:
            more = True
            while more:
                message = await receive()
                data += message.get("body", b"")
                more = message.get("more_body", False)
                if len(data) > self.guard.max_body:
                    refusal = self.guard.too_large()
                    self.guard.count(refusal)
                    raise RefusedError(refusal)
        if timed.cancelled_caught:
            raise RefusedError(Refusal(408, "too_slow", f"expected the whole body within {BODY_TIMEOUT:g} s"))
        if not data:
            return {}
        if kind != "application/json":
            text = f"expected Content-Type: application/json, got {ascii(kind[:64]) if kind else 'none'}"
            raise RefusedError(Refusal(415, "not_json", text))
        try:
            value = msgspec.json.decode(bytes(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedError(Refusal(400, "bad_json", f"expected a JSON object, got: {error}")) from None
        if not isinstance(value, dict):
            text = f"expected a JSON object, got {type(value).__name__}"
            raise RefusedError(Refusal(400, "bad_json", text))
        for name in value:
            if name in request.path_params:
                raise UsageError(f"expected {name!a} in the path alone, got it in the body too")
        return value

    async def _health(self, request: Request, receive: Receive, send: Send) -> None:
        up = self.node.uptime is not None
        body = msgspec.json.encode({"status": "ok" if up else "starting"})
        await _json(request.scope, receive, send, body, 200 if up else 503)

    async def _ready(self, request: Request, receive: Receive, send: Send) -> None:
        answer = await operate.ready(self.node, operate.NoParams())
        await _json(request.scope, receive, send, msgspec.json.encode(answer), 200 if answer.ready else 503)

    async def _metrics(self, request: Request, receive: Receive, send: Send) -> None:
        answer = await operate.metrics(self.node, operate.NoParams())
        made = Response(answer.text, media_type="text/plain; version=0.0.4; charset=utf-8")
        await made(request.scope, receive, send)

    async def _openapi(self, request: Request, receive: Receive, send: Send) -> None:
        await _json(request.scope, receive, send, self._document)


class _Asgi:
    """An endpoint as an ASGI app, which Starlette takes as it is: a function gets its own error handling around it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        await self._endpoint(Request(scope, receive), receive, send)


def _headers(scope: Any) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        found[key] = (*found.get(key, ()), value.decode("latin-1"))
    return found


def _caching(message: Any) -> list[tuple[bytes, bytes]]:
    """Answers of the node aren't kept by anybody; files may be, but are asked for again each time."""
    files = any(name.lower() == b"etag" for name, _ in message["headers"])
    return [(b"cache-control", b"no-cache" if files else b"no-store")]


def _no_route(scope: Any, allowed: set[str]) -> Refusal:
    if allowed:
        names = ", ".join(sorted(allowed))
        text = f"expected one of the methods {names} here, got {scope['method'][:32]!a}"
        return Refusal(405, "wrong_method", text, {"Allow": names})
    return Refusal(404, "no_route", f"expected a path of /openapi.json, got {scope['path'][:200]!a}")


async def _json(scope: Any, receive: Receive, send: Send, body: bytes, status: int = 200) -> None:
    await Response(body, status, media_type="application/json")(scope, receive, send)


async def _refuse(refusal: Refusal, scope: Any, receive: Receive, send: Send) -> None:
    response = Response(
        error_body(refusal.code, refusal.message),
        refusal.status,
        headers=dict(refusal.headers),
        media_type="application/json",
    )
    headers = _headers(scope)
    if "transfer-encoding" in headers or headers.get("content-length", ("0",)) != ("0",):
        response.headers["Connection"] = "close"  # what comes of the body is read by nobody
    await response(scope, receive, send)
