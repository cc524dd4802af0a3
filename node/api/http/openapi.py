"""The table of routes as an OpenAPI 3.1 document. Its schemas are those of the functions' own structs."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from node.api.http.routes import ROUTES, ApiRoute
from node.api.operate import Ready
from node.config import node_version


class ErrorText(msgspec.Struct):
    """`code`: a fixed word; `message`: what was expected and what came, for people."""

    code: str
    message: str


class Error(msgspec.Struct):
    """The body of every answer that is an error."""

    error: ErrorText


class Health(msgspec.Struct):
    """`status`: ok, or starting."""

    status: str


REF = "#/components/schemas/{name}"
_OTHERS = {
    "400": "the request can't be used as it is",
    "401": "the token is missing, or another one",
    "403": "the Host or Origin isn't this API's",
    "404": "there is no such thing",
    "405": "the path has other methods",
    "408": "the body took too long",
    "409": "the node won't do it now",
    "413": "the body is too large",
    "415": "the body isn't JSON",
    "429": "too many requests, listeners or connections, or another limit",
    "500": "a fault of the node's; its log has more",
    "502": "a peer or the network failed",
    "504": "the node took too long",
}


def document() -> dict[str, Any]:
    """The document, as JSON has it."""
    types: list[Any] = [Error, Health, Ready]
    for route in ROUTES:
        types += [one for one in (route.body, route.result) if one is not None]
        types += [route.types[name].type for name in (*route.in_path, *route.query)]
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    of = {_key(one): schema for one, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        path = re.sub(r":path}", "}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, of)
    paths["/health"] = {"get": _plain("health", "200 as soon as the node runs", of[_key(Health)], needs=False)}
    paths["/ready"] = {"get": _plain("ready", "Whether the node can do its work now, and why not", of[_key(Ready)])}
    for path in ("/health", "/ready"):
        answers = paths[path]["get"]["responses"]
        answers["503"] = {**answers["200"], "description": "not yet, or not now"}
    paths["/metrics"] = {"get": _plain("metrics", "All metrics, for Prometheus", {"type": "string"}, "text/plain")}
    paths["/openapi.json"] = {"get": _plain("openapi", "This document", {"type": "object"})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vouch node",
            "version": node_version(),
            "description": "What operators and programs ask of a running node. Bytes are base64, times Unix time in "
            "seconds, durations seconds, unless a name says otherwise.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _key(one: Any) -> str:
    return repr(one)


def _operation(route: ApiRoute, of: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": f"{route.call}",
        "summary": route.summary,
        "tags": [route.path.split("/")[2]],
        "security": [{"token": []}] if route.access == "change" else [{}, {"token": []}],
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": of[_key(route.types[name].type)]}
        for name in route.in_path
    ] + [
        {
            "name": name,
            "in": "query",
            "required": route.types[name].required,
            "schema": of[_key(route.types[name].type)],
        }
        for name in route.query
    ]
    if parameters:
        made["parameters"] = parameters
    if route.body is not None:
        content = {"application/json": {"schema": of[_key(route.body)]}}
        required = any(field.required for field in msgspec.structs.fields(route.body))
        made["requestBody"] = {"required": required, "content": content}
    if route.stream:
        answer = {"text/event-stream": {"schema": {"type": "string"}}}
        text = "events, one after another, until the node or the client ends it"
    else:
        answer = {"application/json": {"schema": of[_key(route.result)]}}
        text = "done"
    made["responses"] = {"200": {"description": text, "content": answer}, **_errors(of)}
    return made


def _errors(of: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": of[_key(Error)]}}
    return {status: {"description": text, "content": content} for status, text in _OTHERS.items()}


def _plain(
    name: str, summary: str, schema: dict[str, Any], kind: str = "application/json", *, needs: bool = True
) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": REF.format(name="Error")}}}
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["node"],
        "security": [{}, {"token": []}] if needs else [{}],
        "responses": {
            "200": {"description": "done", "content": {kind: {"schema": schema}}},
            **{status: {"description": _OTHERS[status], "content": error} for status in ("401", "403", "404", "429")},
        },
    }
