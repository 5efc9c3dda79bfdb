# SPDX-License-Identifier: Apache-2.0
"""Saved sessions: one file of a fixed head, a JSON object, token ids, the KV state's bytes, and a SHA-256 of all before it.

    offset   bytes
    0        8         magic
    8        4         version
    12       4         n, bytes of the JSON object
    16       8         i, token ids
    24       8         k, bytes of the KV state
    32       n         the JSON object, UTF-8
    32 + n   4 i       ids, int32
    then     k         the KV state: slm_session_save in csrc/slm.h
    then     32        SHA-256

Integers are little-endian. Sizes are checked against the file's before anything is read by them, and the digest before anything
is believed.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from slm.formats import json_text
from slm.formats.files import InputFile, atomic_write
from slm.formats.report import Report

MAGIC, VERSION = b"slm\x93sess", 2
HEAD = struct.Struct("<8sIIQQ")
DIGEST_BYTES = 32
MAX_JSON = 64 << 20
READ_SIZE = 1 << 20  # between two looks for a signal

CODES = json_text.CODES | {
    "MAGIC": "not a saved session",
    "VERSION": "a saved session of a version that this slm does not know",
    "SIZE": "the file is not as long as it says",
    "CHANGED": "the size of the file is not what it was when it was opened",
    "DIGEST": "the file is damaged: its bytes are not those that were written",
    "IDS": "token ids outside the vocabulary",
    "STATE": "fields that do not fit together",
    "LIMIT": "larger than slm accepts",
}


class SavedSession(NamedTuple):
    fields: json_text.Object
    ids: list[int]
    state: memoryview
    report: Report


def write_session(path: str | os.PathLike[str], fields: Mapping[str, Any], ids: Sequence[int], state: bytes) -> None:
    """Raises OSError; TypeError and ValueError for fields that JSON cannot hold."""
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    if len(text) > MAX_JSON:
        raise report_of(path).limit("LIMIT", None, "bytes of the conversation", len(text), MAX_JSON)
    digest = hashlib.sha256()
    with atomic_write(path) as file:
        for part in (HEAD.pack(MAGIC, VERSION, len(text), len(ids), len(state)), text, np.array(ids, "<i4").tobytes(), state):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())


def report_of(path: str | os.PathLike[str]) -> Report:
    return Report(path, "SESSION", CODES)


def read_session(path: str | os.PathLike[str], vocab_size: int) -> SavedSession:
    """Raises OSError, FormatError, UnsupportedError (another version), LimitError."""
    report = report_of(path)
    with InputFile(path, report) as file:
        head = file.pread(HEAD.size, 0)
        if len(head) < HEAD.size or head[: len(MAGIC)] != MAGIC:
            raise report.bad("MAGIC", 0, "magic", repr(MAGIC), repr(head[: len(MAGIC)]))
        _, version, n_json, n_ids, n_state = HEAD.unpack(head)
        if version != VERSION:
            raise report.unsupported("VERSION", 8, "version", str(VERSION), version)
        if n_json > MAX_JSON:
            raise report.limit("LIMIT", 12, "bytes of the JSON object", n_json, MAX_JSON)
        size = HEAD.size + n_json + 4 * n_ids + n_state + DIGEST_BYTES
        if size != file.size:
            raise report.bad("SIZE", None, "file size", f"{size} bytes", file.size)
        data = bytearray(size)
        for at in range(0, size, READ_SIZE):
            piece = file.pread(min(READ_SIZE, size - at), at)
            if len(piece) < min(READ_SIZE, size - at):
                raise report.bad("CHANGED", at + len(piece), "file size", f"{size} bytes", at + len(piece))
            data[at : at + len(piece)] = piece
    view = memoryview(data)
    if hashlib.sha256(view[:-DIGEST_BYTES]).digest() != view[-DIGEST_BYTES:]:
        raise report.bad("DIGEST", size - DIGEST_BYTES, "SHA-256", None, "another one")
    begin, end = HEAD.size + n_json, HEAD.size + n_json + 4 * n_ids
    ids = np.frombuffer(view[begin:end], "<i4")
    if n_ids and not 0 <= ids.min() <= ids.max() < vocab_size:
        wrong = int(np.flatnonzero((ids < 0) | (ids >= vocab_size))[0])
        raise report.bad("IDS", begin + 4 * wrong, "token ids", f"0 to {vocab_size - 1}", int(ids[wrong]), index=wrong)
    fields = json_text.parse_object(bytes(view[HEAD.size : begin]), report)
    return SavedSession(fields, ids.tolist(), view[end:-DIGEST_BYTES], report)
