"""The one exception for anything that a user can put right."""


class InputError(Exception):
    """Bad input: one sentence that names the field, file or sample, its value and the remedy.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """
