"""Who may ask the HTTP API: rules without I/O.

    Host -> Origin -> rate -> token -> size of the body          the first that is broken is the answer

- **Host** must be a name of ours, always: a page of another site that has its own name point at this machine (DNS
  rebinding) sends that name.
- **Origin**, where a browser tells it, must be ours as well, and `Sec-Fetch-Site` not "cross-site": other sites' pages
  may neither change anything nor listen. There is no CORS.
- The **token** goes with whatever changes something or makes the node work; beyond this machine, and with
  `api_token = "always"`, with everything but /health and the dashboard's files, which hold nothing of the node.
- What is refused is refused before the body is looked at.

What a foreign page has a browser of this machine ask is refused, and takes nothing of this machine's rate: it has one
of its own, or it could keep the dashboard and Prometheus out.

`Rates` and `Places` bound how often and how many at once. Times are the caller's.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

# who may ask for a route: anybody, who can read, who can change things
Access = Literal["open", "read", "change"]

# requests that one address may make at once, in seconds' worth of its rate
BURST = 2.0
# addresses whose rates are remembered; the one that asked longest ago goes first
MAX_ADDRESSES = 1024
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
BEARER = "bearer "


@dataclass(frozen=True)
class Refusal:
    """Why a request isn't answered: HTTP status, a fixed word, and a sentence that says what was expected."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request as far as the rules look at it; of a header that comes more than once, all values."""

    headers: Mapping[str, tuple[str, ...]]
    access: Access

    def one(self, name: str) -> str | None:
        """The header's only value; None if it is missing. Raises ValueError if there are several."""
        values = self.headers.get(name, ())
        if len(values) > 1:
            raise ValueError(name)
        return values[0] if values else None


class Guard:
    """The rules of one API."""

    def __init__(
        self,
        token: str,
        *,
        port: int,
        names: Iterable[str] = (),
        any_ip: bool = False,
        tls: bool = False,
        always: bool = False,
        max_body: int = 2 << 20,
    ) -> None:
        """`names`: by which it may be reached, beside LOCAL_NAMES; `any_ip`: and by any IP address, which no page
        of another site can have for its name; `always`: reading needs the token too.
        """
        self._token = _digest(token)
        self._names = frozenset(map(_name, (*LOCAL_NAMES, *names)))
        self._port = port
        self._any_ip = any_ip
        self._tls = tls
        self._always = always
        self.max_body = max_body
        self.refused: Counter[str] = Counter()  # by code

    def foreign(self, asked: Asked) -> Refusal | None:
        """Why a request isn't of this API's own pages or of a program: Host and Origin."""
        return self._first(asked, self._host, self._origin)

    def unfit(self, asked: Asked) -> Refusal | None:
        """Why a request that isn't `foreign` has no answer: the token, the size of the body."""
        return self._first(asked, self._authorized, self._body)

    def _first(self, asked: Asked, *rules: Callable[[Asked], Refusal | None]) -> Refusal | None:
        try:
            return next((found for rule in rules if (found := rule(asked)) is not None), None)
        except ValueError as error:
            return Refusal(400, "bad_header", f"expected the header {error} once, got it several times")

    def count(self, refusal: Refusal) -> None:
        """Counts a refusal."""
        self.refused[refusal.code] += 1

    def too_large(self) -> Refusal:
        """For a body without a length that turns out to be longer than it may be."""
        return Refusal(413, "too_large", f"expected a body of at most {self.max_body} bytes (max_api_body), got more")

    def _host(self, asked: Asked) -> Refusal | None:
        host = asked.one("host")
        if host is not None and self._is_ours(self._place(host)):
            return None
        return Refusal(
            403,
            "wrong_host",
            "expected a Host that this API is reached by, such as localhost or one of the setting api_hosts, "
            f"got {_shown(host)}",
        )

    def _origin(self, asked: Asked) -> Refusal | None:
        origin = asked.one("origin")
        if origin is not None:
            try:
                parts = urlsplit(origin)
                place = self._place(parts.netloc)
                fits = parts.scheme == ("https" if self._tls else "http") and place is not None
                fits = fits and place == self._place(asked.one("host") or "")
            except ValueError:
                fits = False
            if not fits:
                return Refusal(403, "wrong_origin", f"expected no Origin but this API's own, got {_shown(origin)}")
        if asked.access != "open" and asked.one("sec-fetch-site") == "cross-site":
            return Refusal(403, "wrong_origin", "expected a page of this API to ask, got one of another site")
        return None

    def _authorized(self, asked: Asked) -> Refusal | None:
        if asked.access == "open" or (asked.access == "read" and not self._always):
            return None
        given = asked.one("authorization")
        if given is not None and given[: len(BEARER)].lower() == BEARER:
            if hmac.compare_digest(_digest(given[len(BEARER) :].strip()), self._token):
                return None
            got = "another token"
        else:
            got = "none" if given is None else "another kind of authorization"
        return Refusal(
            401,
            "no_token",
            "expected the header Authorization: Bearer TOKEN, with the token of the file api.token in the node's data "
            f"folder (`vouch token` prints it), got {got}",
            {"WWW-Authenticate": 'Bearer realm="vouch"'},
        )

    def _body(self, asked: Asked) -> Refusal | None:
        length = asked.one("content-length")
        if length is None:
            return None
        if not (length.isascii() and length.isdigit()):
            return Refusal(400, "bad_header", f"expected a Content-Length in bytes, got {_shown(length)}")
        if len(length) > 18 or int(length) > self.max_body:
            return Refusal(
                413,
                "too_large",
                f"expected a body of at most {self.max_body} bytes (max_api_body), got {length[:32]}",
            )
        return None

    def _place(self, host: str) -> tuple[str, int] | None:
        """The name and port of HOST or HOST:PORT; None if it is something else."""
        try:
            parts = urlsplit(f"//{host}")
            if parts.netloc != host or parts.username is not None or parts.hostname is None:
                return None
            port = parts.port
        except ValueError:
            return None
        return _name(parts.hostname), port if port is not None else (443 if self._tls else 80)

    def _is_ours(self, place: tuple[str, int] | None) -> bool:
        if place is None:
            return False
        name, port = place
        if name in LOCAL_NAMES:  # with any port: a forwarded one (ssh -L, a container's) is another number here
            return True
        return port == self._port and (name in self._names or (self._any_ip and _is_ip(name)))


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(text: str) -> str:
    """A name or address in its one form."""
    text = text.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _shown(value: str | None) -> str:
    return "none" if value is None else ascii(value[:100])


class Rates:
    """How often each address may ask: `rate` a second on average, BURST seconds' worth at once."""

    def __init__(self, rate: float, *, most: int = MAX_ADDRESSES) -> None:
        self._rate = rate
        self._most = most
        self._at: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and since when

    def take(self, address: str, now: float, cost: float = 1.0) -> Refusal | None:
        """Takes one request's worth, or what an expensive one costs."""
        full = max(1.0, self._rate * BURST)
        left, since = self._at.pop(address, (full, now))
        left = min(full, left + max(0.0, now - since) * self._rate)
        cost = min(cost, full)
        self._at[address] = (left - cost if left >= cost else left, now)
        while len(self._at) > self._most:
            self._at.popitem(last=False)
        if left >= cost:
            return None
        wait = max(1, round((cost - left) / self._rate + 0.5))
        text = f"expected at most {self._rate:g} requests a second (max_api_rate), got more"
        return Refusal(429, "too_many_requests", text, {"Retry-After": str(wait)})

    def __len__(self) -> int:
        return len(self._at)


class Places:
    """How many may be here at once: `limit` in all, and of one other machine half of them."""

    def __init__(self, limit: int, setting: str) -> None:
        self.limit = limit
        self.refused = 0
        self.setting = setting
        self._taken: Counter[str] = Counter()

    @property
    def used(self) -> int:
        return self._taken.total()

    def figures(self) -> tuple[int, int, int]:
        """Used, limit, refused."""
        return self.used, self.limit, self.refused

    def full(self, address: str | None = None) -> bool:
        """Whether there is no place, for an address or at all."""
        if address is None or self.used >= self.limit:
            return self.used >= self.limit
        return not _is_local(address) and self._taken[address] >= max(1, self.limit // 2)

    def take(self, address: str) -> Refusal | None:
        """Takes a place, to be given back by `leave`, or tells why there is none."""
        if not self.full(address):
            self._taken[address] += 1
            return None
        self.refused += 1
        text = f"expected at most {self.limit} at once ({self.setting}), got one more"
        return Refusal(429, "too_many", text, {"Retry-After": "5"})

    def leave(self, address: str) -> None:
        """Gives a place back."""
        self._taken[address] -= 1
        if self._taken[address] <= 0:
            del self._taken[address]


def _is_local(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
