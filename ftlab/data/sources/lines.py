"""Text files as a stream of lines, paragraphs or whole files, with the place of whatever cannot be decoded."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from io import BufferedReader
from typing import Literal, TypeAlias

from ftlab.data.sources.files import opened
from ftlab.errors import ConfigError, DataError

Unit: TypeAlias = Literal["line", "paragraph", "file"]

_BLOCK = 1 << 20


def check_encoding(encoding: str) -> None:
    """Refuse an encoding that Python does not have, or that is not one for text.

    Raises:
        ConfigError: Names the encoding and some that exist.
    """
    try:
        # Decoding rejects codecs such as hex, which a look-up alone would accept.
        b"-".decode(encoding, "ignore")
    except (LookupError, ValueError) as error:
        raise ConfigError(f"encoding is {encoding!r}, which is no text encoding; use utf-8, utf-16, cp1252 or latin-1.") from error


def lines(path: str, encoding: str) -> Iterator[str]:
    r"""The lines of a file with their ends, which are `\n`, `\r\n` or `\r`; a byte order mark is dropped.

    Raises:
        DataError: A line cannot be decoded or holds a NUL, or the file cannot be read.
    """
    for number, text in enumerate(_text(path, encoding), 1):
        if "\0" in text:
            raise DataError(f"{path}: line {number} holds a NUL character, which is not text; mend the line, or set the file's encoding.")
        yield text


def texts(path: str, encoding: str, unit: Unit) -> Iterator[str]:
    """The units of a file: its lines or paragraphs that are not blank, or all of it unless it is blank.

    Paragraphs are what blank lines separate. Line ends are cut from lines and become one newline in longer units.
    """
    held: list[str] = []
    for line in lines(path, encoding):
        text = line.rstrip("\r\n")
        if unit == "line" and text.strip():
            yield text
        elif unit == "paragraph" and held and not text.strip():
            yield "\n".join(held)
            held = []
        elif unit == "file" or (unit == "paragraph" and text.strip()):
            # The last line of a file may have no end, and a file keeps the one it has.
            held.append(text if unit == "paragraph" or text == line else text + "\n")
    joined = ("" if unit == "file" else "\n").join(held)
    if joined.strip():
        yield joined


def _text(path: str, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    number, offset, held = 1, 0, ""
    with opened(path) as file:
        for block in _blocks(file):
            text, bad = _decode(decoder, block)
            # StringIO splits where open() would, and not at U+2028 and its like as str.splitlines does.
            found = io.StringIO(held + (text if offset else text.removeprefix("\ufeff")), newline="").readlines()
            # What ends in "\r" may go on with "\n".
            held = found.pop() if found and block and not found[-1].endswith("\n") else ""
            number += len(found)
            yield from found
            if bad:
                raise DataError(
                    f"{path}: line {number} is not {encoding}: byte 0x{bad[1]:02x} at offset {offset + bad[0]} of the file; "
                    "mend the line, or set the file's encoding."
                )
            offset += len(block)


def _blocks(file: BufferedReader) -> Iterator[bytes]:
    """The bytes of a file, and at its end the empty block that flushes a decoder."""
    while block := file.read(_BLOCK):
        yield block
    yield b""


def _decode(decoder: codecs.IncrementalDecoder, block: bytes) -> tuple[str, tuple[int, int] | None]:
    """The text of a block, and where decoding stopped, if it did: the offset within the block, and the byte there."""
    before = decoder.getstate()
    try:
        return decoder.decode(block, not block), None
    except UnicodeError as error:
        decoder.setstate(before)
        if not isinstance(error, UnicodeDecodeError):
            # UTF-16 and UTF-32 without a byte order mark fail at their start, and do not say so.
            return "", (0, block[0])
        # A character that the last block began makes the offset negative.
        at = error.start - len(before[0])
        return decoder.decode(block[: max(at, 0)]), (at, error.object[error.start])
