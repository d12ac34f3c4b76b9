"""How a handler may end: with an answer, or with an error number that its caller understands.

Owns the table from our errors to errno, and the guard that every FUSE handler wears: the only exceptions
that may leave a handler are FUSEError and trio's cancellation, because any other ends the mount (pyfuse3,
``Operations``).
"""

from __future__ import annotations

import errno
import functools
import logging
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3

from dicomfs.errors import (
    CatalogBusy,
    CatalogFull,
    DicomfsError,
    NotFoundError,
    ObjectCold,
    TierFull,
    UsageError,
)

ERRNO: tuple[tuple[type[DicomfsError], int], ...] = (
    (NotFoundError, errno.ENOENT),
    (CatalogBusy, errno.EAGAIN),
    # Not EAGAIN nor ETIMEDOUT, which programs and NFS servers try again without end, for hours; not EIO,
    # which means damage.
    (ObjectCold, errno.EBUSY),
    (CatalogFull, errno.ENOSPC),
    (TierFull, errno.ENOSPC),
    (UsageError, errno.EINVAL),
    (DicomfsError, errno.EIO),
)
"""First match wins; damage, mismatches, codecs and tiers are all EIO: the bytes cannot be had intact."""

_log = logging.getLogger(__name__)

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")
Handler = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]
"""A method that answers one kind of request."""


def errno_of(problem: DicomfsError) -> int:
    """The error number a caller sees."""
    return next(number for kind, number in ERRNO if isinstance(problem, kind))


def guarded(handler: Handler[S, P, T]) -> Handler[S, P, T]:
    """Let nothing but FUSEError leave a handler; its first number, an inode or a handle, is logged."""

    @functools.wraps(handler)
    async def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except DicomfsError as problem:
            number = errno_of(problem)
            level = logging.DEBUG if number == errno.ENOENT else logging.WARNING
            _log.log(level, "%s of %s failed: %s", handler.__name__, _subject(args), problem)
            raise pyfuse3.FUSEError(number) from problem
        except Exception as problem:
            _log_stray(handler.__name__, _subject(args), problem)
            raise pyfuse3.FUSEError(errno.EIO) from problem

    return wrapper


def _subject(args: tuple[object, ...]) -> str:
    return f"{args[0]:#x}" if args and isinstance(args[0], int) else "the mount"


def _log_stray(operation: str, subject: str, problem: Exception) -> None:
    """Log where a stray exception came from; its text may quote attributes of a patient, so it stays out."""
    trace = "".join(traceback.format_tb(problem.__traceback__))
    _log.error("%s of %s met %s\n%s", operation, subject, type(problem).__name__, trace)
