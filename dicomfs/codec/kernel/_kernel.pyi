from collections.abc import Callable

# What cffi makes from kernel.h.

class CData:
    """A C value: a pointer, or an array that keeps the buffer it was made from alive."""

    def __len__(self) -> int: ...

class _Ffi:
    NULL: CData
    def buffer(self, cdata: CData, size: int) -> memoryview: ...
    def new(self, kind: str, init: object = ...) -> CData: ...
    def from_buffer(self, kind: str, buffer: object, require_writable: bool = ...) -> CData: ...

class _Lib:
    DFK_REFERENCES: int
    def __getattr__(self, function: str) -> Callable[..., int]: ...

ffi: _Ffi
lib: _Lib
