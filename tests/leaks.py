"""What is written in a file, also where it is encoded: tests look for canaries in it."""

import base64
import html
import re
import zlib
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes


def forms(content: bytes) -> Iterator[bytes]:
    """A file's bytes, and what is written in them as entities, by percent signs, in base64 or compressed."""
    yield content
    yield html.unescape(content.decode(errors="replace")).encode()
    yield unquote_to_bytes(content)
    for blob in re.findall(rb"[A-Za-z0-9+/]{16,}", content):
        for start in range(4):
            whole = blob[start : start + (len(blob) - start) // 4 * 4]
            yield base64.b64decode(whole)
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", content, re.DOTALL):
        try:
            yield zlib.decompress(stream)
        except zlib.error:
            yield stream
