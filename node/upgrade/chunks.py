"""Queues of byte chunks: taking from their front without copying more than is asked for."""

from __future__ import annotations

from collections import deque

Chunk = bytes | bytearray | memoryview


def move(
    chunks: deque[bytes | memoryview], size: int, into: deque[bytes | memoryview] | list[bytes | memoryview]
) -> None:
    """Moves the first `size` bytes, or all, to the end of another queue; nothing is copied."""
    while size and chunks:
        chunk = chunks[0]
        if len(chunk) <= size:
            into.append(chunks.popleft())
            size -= len(chunk)
        else:
            view = memoryview(chunk)
            into.append(view[:size])
            chunks[0] = view[size:]
            return


def take(chunks: deque[bytes | memoryview], size: int) -> bytes | memoryview:
    """Takes the first `size` bytes, or all; copied only if they are in several chunks."""
    parts: list[bytes | memoryview] = []
    move(chunks, size, parts)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def join(chunks: deque[Chunk], at: int, size: int) -> tuple[bytes, int]:
    """Takes `size` bytes from offset `at` of the first chunk on, as bytes; the new offset. So many must be there."""
    parts: list[Chunk] = []
    while size:
        chunk = chunks[0]
        piece = chunk if not at and len(chunk) <= size else chunk[at : at + size]
        parts.append(piece)
        size -= len(piece)
        at += len(piece)
        if at == len(chunk):
            chunks.popleft()
            at = 0
    return (bytes(parts[0]) if len(parts) == 1 else b"".join(parts)), at
