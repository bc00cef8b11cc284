"""The one exception that bad input raises, and the shortening of what it quotes."""

LONGEST = 300  # characters of what another library or a file says, quoted in a message
GAP = " ... "


class InputError(ValueError):
    """Bad input: the message is one line that names the file, the array or option, what was expected, what came.

    The commands print it on stderr and exit with code 2.
    """


def in_short(what: object) -> str:
    """A text on one line, of at most LONGEST characters: its middle is left out where it is longer."""
    text = " ".join(str(what).split())
    half = (LONGEST - len(GAP)) // 2
    return text if len(text) <= LONGEST else f"{text[:half]}{GAP}{text[-half:]}"


def listed(items, most: int = 5) -> str:
    """The first few of many, as a text: 0, 1, 2, ... (40 in all)."""
    items = [str(item) for item in items]
    return ", ".join(items[:most]) + (f", ... ({len(items)} in all)" if len(items) > most else "")
