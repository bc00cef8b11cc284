"""Ctrl-C ends a command at once, in one line: installed before the slow imports, and not lost inside a library's callback.

Imports nothing that takes time.
"""

import contextlib
import os
import signal
import sys

PARTIAL_FILES: set[str] = set()  # being written; removed before the end


def module_run(words: list[str]) -> str:
    """The module that a command line of Python runs, by ``-m NAME`` or ``-mNAME``."""
    for i, word in enumerate(words):
        if word.startswith("-m"):
            return word[2:] or "".join(words[i + 1 : i + 2])
    return ""


def install(prog: str) -> None:
    """From now on SIGINT prints one line and ends the process with code 130."""

    def end(number, frame):
        for path in PARTIAL_FILES:
            with contextlib.suppress(OSError):
                os.unlink(path)
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{prog}: interrupted\n".encode())
        os._exit(130)

    signal.signal(signal.SIGINT, end)
