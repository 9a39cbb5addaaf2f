"""Reading the files of a checkpoint: never more than is expected, and one line on what is wrong."""

import json
from pathlib import Path
from typing import Any

from .families import ModelError
from .tensors import shown, unique_entries


def read_bytes(path: Path, *, most: int) -> bytes:
    """The content of a file.

    Raises:
      ModelError: it cannot be read, or holds more than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > most:
        raise ModelError(f"{path}: more than {most} bytes")
    return content


def read_text(path: Path, *, most: int) -> str:
    """The text of a file in UTF-8; raises ModelError as `read_bytes`, or if it is none."""
    try:
        return read_bytes(path, most=most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not UTF-8") from error


def read_object(path: Path, *, most: int) -> dict[str, Any]:
    """The JSON object in a file; raises ModelError as `read_bytes`, or if it is none."""
    content = read_bytes(path, most=most)
    try:
        data = json.loads(content, object_pairs_hook=unique_entries)
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
        return data
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: {shown(' '.join(str(error).split()))}") from error
