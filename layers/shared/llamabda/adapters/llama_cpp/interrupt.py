"""Stopping llama.cpp in the middle of an evaluation."""

from __future__ import annotations

import ctypes


class Interrupt:
    """Tells a running evaluation to stop, from any thread; for good.

    llama.cpp asks a C function before every step of its graph, a thousand times for each batch. A function in Python
    would take the interpreter's lock each time, for which other threads queue up. So it is given one of the C library's
    own: `atoi` over two bytes that we own, which read as 0, and as 1 once `set` was called.
    """

    __slots__ = ("_text",)

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(b"0")

    def set(self) -> None:
        self._text[0] = b"1"

    def __call__(self) -> bool:
        return self._text[0] == b"1"

    @property
    def address(self) -> int:
        """Of the bytes; they live as long as this object."""
        return ctypes.addressof(self._text)


def asks() -> int:
    """The address of the C function: bool (*)(void *)."""
    return ctypes.cast(ctypes.CDLL(None).atoi, ctypes.c_void_p).value or 0
