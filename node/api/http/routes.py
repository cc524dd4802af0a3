"""Every route of the HTTP API but the dashboard's: a line each, from which come the app and the OpenAPI document.

A route is a function of `node.api.functions` under a path: its parameters come from the path, the query where the line
names them, and else from a JSON object in the body. `access` is who may ask (`guard.Access`): what changes something
or makes the node work on the network is "change".
"""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import msgspec

from node.api.functions import CALLS, STREAMS, Call
from node.api.http.guard import Access

Method = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True)
class ApiRoute:
    """One line. `query`: which parameters come there; `stream`: it goes on telling, as server-sent events; `cost`: how
    many requests' worth it takes of `max_api_rate`.
    """

    method: Method
    path: str
    call: str
    access: Access
    query: tuple[str, ...] = ()
    stream: bool = False
    cost: float = 1.0

    @property
    def function(self) -> Call:
        return (STREAMS if self.stream else CALLS)[self.call]

    @cached_property
    def in_path(self) -> tuple[str, ...]:
        """The parameters in the path."""
        return tuple(re.findall(r"{(\w+)(?::path)?}", self.path))

    @cached_property
    def types(self) -> dict[str, msgspec.structs.FieldInfo]:
        """The parameters of the function."""
        return {field.name: field for field in msgspec.structs.fields(self.function.params)}

    @cached_property
    def body(self) -> type[msgspec.Struct] | None:
        """What the body holds: the parameters that come neither in the path nor in the query."""
        names = [name for name in self.types if name not in (*self.in_path, *self.query)]
        if self.method in ("GET", "DELETE") or not names:
            return None
        if len(names) == len(self.types):
            return self.function.params
        fields: list[Any] = [
            (name, self.types[name].type)
            if self.types[name].required
            else (name, self.types[name].type, _default(self.types[name]))
            for name in names
        ]
        name = f"{self.function.params.__name__}Body"
        return msgspec.defstruct(name, fields, forbid_unknown_fields=True, module=__name__)

    @cached_property
    def result(self) -> Any:
        """The type of the answer, or None for a stream."""
        if self.stream:
            return None
        # some modules know Node for type checkers only
        return typing.get_type_hints(self.function.function, localns={"Node": object})["return"]

    @property
    def summary(self) -> str:
        """The first sentence of the function's docstring."""
        text = " ".join((self.function.function.__doc__ or "").split())
        return re.split(r"(?<=[.])\s", text)[0].rstrip(".")


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=field.default_factory)
    return field.default


ROUTES: tuple[ApiRoute, ...] = (
    ApiRoute("GET", "/v1/node", "status", "read"),
    ApiRoute("GET", "/v1/peers", "peers", "read"),
    ApiRoute("POST", "/v1/peers", "connect", "change"),
    ApiRoute("GET", "/v1/peers/{peer}", "peer", "read"),
    ApiRoute("DELETE", "/v1/peers/{peer}", "disconnect", "change"),
    ApiRoute("POST", "/v1/peers/{target}/ping", "ping", "change"),
    ApiRoute("POST", "/v1/peers/{target}/perf", "perf", "change"),
    ApiRoute("PUT", "/v1/peers/{peer}/tags/{tag}", "protect_peer", "change"),
    ApiRoute("DELETE", "/v1/peers/{peer}/tags/{tag}", "unprotect_peer", "change"),
    ApiRoute("GET", "/v1/addressbook", "addressbook", "read", cost=20),  # ten thousand peers take a while
    ApiRoute("POST", "/v1/addressbook", "add_peer", "change"),
    ApiRoute("DELETE", "/v1/addressbook/{peer}", "remove_peer", "change"),
    ApiRoute("GET", "/v1/bans", "bans", "read"),
    ApiRoute("POST", "/v1/bans", "ban", "change"),
    ApiRoute("DELETE", "/v1/bans", "unban", "change", query=("target",)),
    ApiRoute("GET", "/v1/gossip", "gossip", "read"),
    ApiRoute("GET", "/v1/topics", "topics", "read"),
    ApiRoute("GET", "/v1/topics/{topic:path}/mesh", "mesh", "read"),
    ApiRoute("POST", "/v1/publish", "publish", "change"),
    ApiRoute("GET", "/v1/subscribe", "subscribe", "change", query=("topic", "payload", "decide"), stream=True),
    ApiRoute("POST", "/v1/verdicts/{id}", "verdict", "change"),
    ApiRoute("POST", "/v1/dht/find-peer", "find_peer", "change"),
    ApiRoute("POST", "/v1/dht/find-providers", "dht_find_providers", "change"),
    ApiRoute("POST", "/v1/dht/provide", "dht_provide", "change"),
    ApiRoute("POST", "/v1/dht/get", "dht_get", "change"),
    ApiRoute("POST", "/v1/dht/put", "dht_put", "change"),
    ApiRoute("POST", "/v1/dht/withdraw", "dht_withdraw", "change"),
    ApiRoute("GET", "/v1/registrations", "registrations", "read", query=("namespace", "after")),
    ApiRoute("POST", "/v1/discover", "discover", "change"),
    ApiRoute("GET", "/v1/metrics", "metrics_snapshot", "read"),
    ApiRoute("GET", "/v1/config", "config", "read"),
    ApiRoute("GET", "/v1/loglevel", "loglevel", "read"),
    ApiRoute("PUT", "/v1/loglevel", "set_loglevel", "change"),
    ApiRoute("GET", "/v1/events", "events", "read", query=("kinds",), stream=True),
)
