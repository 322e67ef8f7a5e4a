"""The error of a command that cannot be done."""


class CommandError(Exception):
    """The command cannot be done; the message has the reason."""
