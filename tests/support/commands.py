"""Doors called as a person would: exit codes and one-line errors."""


def code(door, *arguments) -> int:
    """The exit code of a door, whether it returns or the parser exits."""
    try:
        return door.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def one_line(capsys, *names):
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1, error
    assert "Traceback" not in error
    for name in names:
        assert name in error, error
