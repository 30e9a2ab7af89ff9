"""The one exception for anything that a user can put right, and what a disk that refuses looks like to a user."""

from __future__ import annotations

import errno


class InputError(Exception):
    """Bad input: one sentence that names the field, file or sample, its value and the remedy.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


def file_trouble(error: OSError) -> str | None:
    """One sentence about a path that cannot be read or written, or a full disk; None for any other error of the system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'the output'} cannot be written: {error.strerror}; make room and run the command again"
    # A replaced file is named second: the first is our temporary one.
    path = error.filename2 or error.filename
    if path is None or error.strerror is None:
        return None
    reason = "a file of that name is in the way" if error.errno == errno.EEXIST else error.strerror
    return f"{path} cannot be used: {reason}; check the path and its permissions"
