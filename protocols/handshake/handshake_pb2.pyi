from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Hello(_message.Message):
    __slots__ = ("client_version", "network_id")
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    client_version: str
    network_id: bytes
    def __init__(self, client_version: _Optional[str] = ..., network_id: _Optional[bytes] = ...) -> None: ...
