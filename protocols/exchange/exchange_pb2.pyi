from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExchangeMessage(_message.Message):
    __slots__ = ("ping", "pong", "get_addresses", "addresses")
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    GET_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ping: Alive
    pong: Alive
    get_addresses: GetAddresses
    addresses: Addresses
    def __init__(self, ping: _Optional[_Union[Alive, _Mapping]] = ..., pong: _Optional[_Union[Alive, _Mapping]] = ..., get_addresses: _Optional[_Union[GetAddresses, _Mapping]] = ..., addresses: _Optional[_Union[Addresses, _Mapping]] = ...) -> None: ...

class Alive(_message.Message):
    __slots__ = ("peer_id", "multiaddrs", "nonce")
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    MULTIADDRS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    peer_id: bytes
    multiaddrs: _containers.RepeatedScalarFieldContainer[bytes]
    nonce: int
    def __init__(self, peer_id: _Optional[bytes] = ..., multiaddrs: _Optional[_Iterable[bytes]] = ..., nonce: _Optional[int] = ...) -> None: ...

class GetAddresses(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class Addresses(_message.Message):
    __slots__ = ("signed_peer_records",)
    SIGNED_PEER_RECORDS_FIELD_NUMBER: _ClassVar[int]
    signed_peer_records: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, signed_peer_records: _Optional[_Iterable[bytes]] = ...) -> None: ...
