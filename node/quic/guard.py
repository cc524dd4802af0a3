"""What qh3 raises becomes one kind of error: all sorts of exceptions come out of it, and Rust's panics are none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class QuicError(Exception):
    """The connection can't go on."""


def is_panic(error: BaseException) -> bool:
    """Whether that is a panic in Rust, which is no Exception."""
    return type(error).__module__ == "pyo3_runtime"


@contextmanager
def guarded() -> Iterator[None]:
    """Makes one kind of error of all that qh3 raises; a panic in Rust is no Exception."""
    try:
        yield
    except QuicError:
        raise
    except Exception as error:
        raise QuicError(f"{type(error).__name__}: {error}") from error
    except BaseException as error:
        if is_panic(error):
            raise QuicError(f"qh3 failed: {error}") from error
        raise


@contextmanager
def no_panic() -> Iterator[None]:
    """Makes a RuntimeError of a panic in Rust."""
    try:
        yield
    except BaseException as error:
        if is_panic(error):
            raise RuntimeError(f"qh3 failed: {error}") from error
        raise
