"""Where archive keys come from: the environment, key files, or a command that prints one.

Owns the order of these and how the command is run.  What a key looks like is up to `keys`.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from dicomfs.config import FILE_NAME, KeySettings
from dicomfs.crypto.keys import ArchiveKey, from_text, read_key_file
from dicomfs.errors import ConfigError, UsageError

COMMAND_SECONDS = 30.0
"""How long the command may take: a KMS answers within seconds, and a mount must not hang for it."""
_MOST_OUTPUT = 1 << 16


def load_keys(settings: KeySettings, archive: Path, environment: Mapping[str, str]) -> tuple[ArchiveKey, ...]:
    """The archive's keys: the first wraps what is written, each of them opens; empty when none is set.

    ``DICOMFS_KEY`` (the key itself) wins over ``DICOMFS_KEY_FILE``, and that over ``keys.file`` and
    ``keys.command``.  Relative names of files in the settings count from the folder of the archive.

    Raises:
        UsageError: a key that is set cannot be had.
    """
    if text := environment.get("DICOMFS_KEY"):
        return (from_text(text, "DICOMFS_KEY"),)
    if name := environment.get("DICOMFS_KEY_FILE"):
        return (read_key_file(Path(name)),)
    if settings.file and settings.command:
        raise ConfigError(str(archive / FILE_NAME), "keys", "set file or command, not both")
    if settings.command:
        return (from_command(settings.command),)
    names = [settings.file] if isinstance(settings.file, str) else settings.file
    return tuple(read_key_file(archive / name) for name in names)


def from_command(command: str, seconds: float = COMMAND_SECONDS) -> ArchiveKey:
    """Run a command, without a shell, and read the key that it prints.

    Raises:
        UsageError: it cannot be run, fails, takes longer than ``seconds`` or prints no key.  No message
            shows what it printed.
    """
    where = "the command of keys.command"
    try:
        arguments = shlex.split(command)
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError, IndexError) as problem:
        raise UsageError(f"{where}: cannot be run: {problem}") from problem
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise UsageError(f"{where}: no answer within {seconds:.0f} s; run it by hand to see why") from None
    finally:
        _end(process)
    if process.returncode != 0:
        raise UsageError(f"{where}: ended with {process.returncode}; run it by hand to see why")
    try:
        text = output.decode("ascii")
    except UnicodeDecodeError:
        raise UsageError(f"{where}: does not print text") from None
    return from_text(text[:_MOST_OUTPUT], where)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and what it started, where it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
