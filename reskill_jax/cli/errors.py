"""What goes wrong: a person's mistakes, told in one line, and defects, told in full."""

import contextlib
from collections.abc import Iterator


class CommandLineError(ValueError):
    """A mistake on the command line; the message is one line."""


class RunError(ValueError):
    """A folder that is no run; the message is one line."""


@contextlib.contextmanager
def mistakes_of_the_command_line() -> Iterator[None]:
    """What goes wrong here is a mistake of the command line, whatever found it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, CommandLineError) or not is_expected(error):
            raise
        raise CommandLineError(message_of(error)) from error


def is_expected(error: Exception) -> bool:
    """Errors of ours and of the system say what is wrong; anything else is a defect of ours."""
    ours = type(error).__module__.split(".")[0] == "reskill_jax"
    return ours or isinstance(error, (OSError, MemoryError)) or _is_memory_of_device(error)


def _is_memory_of_device(error: Exception) -> bool:
    """Whether JAX had too little memory; its own class of errors is not imported for this."""
    return type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError") and (
        "RESOURCE_EXHAUSTED" in str(error)
    )


def message_of(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, MemoryError) or _is_memory_of_device(error):
        reason = " ".join(str(error).split())[:200]
        return f"there is too little memory ({reason}); play or train fewer games at once"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
