"""An end whose wire is off by a byte: what the tests of the tests need.

INTEROP_MUTATE names one change of one module of the project, in JSON; it is made in the module's source when it is
imported, so that everything made from it has it:

    {"module": "protocols.handshake.wire", "old": "handshake/1.0.0", "new": "handshake/1.0.1"}   text that is there once
    {"module": "protocols.handshake.handshake_pb2", "field": "Hello.network_id"}   another field number

Only the program that tests start reads it; the node knows nothing of it.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

VARIABLE = "INTEROP_MUTATE"


def install(text: str) -> None:
    """Makes the change that `text` names, if any, from the next import on. Raises ValueError for what is no change."""
    if not text:
        return
    change = json.loads(text)
    if change["module"] in sys.modules:
        raise ValueError(f"expected {change['module']} not to be imported yet")
    sys.meta_path.insert(0, _Finder(change))


def changed(source: str, change: dict[str, Any]) -> str:
    """The source with the change. Raises ValueError where it doesn't fit."""
    if "field" in change:
        return _renumbered(source, change["field"])
    if source.count(change["old"]) != 1:
        raise ValueError(
            f"{change['module']}: expected {change['old']!r} once, found it {source.count(change['old'])} times"
        )
    return source.replace(change["old"], change["new"])


def _renumbered(source: str, field: str) -> str:
    """Generated protobuf code whose descriptor has another number for a field, one that no other has."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    call = next(
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "AddSerializedFile"
    )
    literal = call.args[0]
    assert isinstance(literal, ast.Constant)
    assert isinstance(literal.value, bytes)
    file = FileDescriptorProto.FromString(literal.value)
    *path, name = field.split(".")
    holders: Any = file.message_type
    message: Any = None
    for part in path:
        message = next((one for one in holders if one.name == part), None)
        if message is None:
            raise ValueError(f"expected a message {field}, found none")
        holders = message.nested_type
    numbers = {one.number for one in message.field}
    wanted = next((one for one in message.field if one.name == name), None)
    if wanted is None:
        raise ValueError(f"expected a field {field}, found none")
    wanted.number = next(number for number in range(max(numbers), max(numbers) + 20) if number not in numbers)
    segment = ast.get_source_segment(source, literal)
    assert segment is not None
    return source.replace(segment, repr(file.SerializeToString()))


class _Finder(MetaPathFinder):
    def __init__(self, change: dict[str, Any]) -> None:
        self._change = change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._change["module"]:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return None
        spec.loader = _Loader(fullname, spec.origin, self._change)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, change: dict[str, Any]) -> None:
        super().__init__(fullname, path)
        self._change = change

    def get_code(self, fullname: str) -> CodeType:
        """Always from the source: what is compiled in the cache is unchanged."""
        path = self.get_filename(fullname)
        source = changed(self.get_data(path).decode(), self._change)
        return compile(source, path, "exec", dont_inherit=True)
