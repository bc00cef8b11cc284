"""The one exception that bad input raises."""


class InputError(ValueError):
    """Bad input: the message is one line that names the file, the array or option, what was expected, what came.

    The commands print it on stderr and exit with code 2.
    """
