"""Records that carry a digest of their own content, so that a changed one is told from the one that was written.

The digest guards against damage and mixed-up files, not against someone who computes it anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nasprune.common.fields import Field, shown
from nasprune.common.files import opened
from nasprune.errors import InputError

DIGEST = "digest"
MIXED = "copy both from one save, or save again"


def sealed(record: Mapping[str, object]) -> dict[str, object]:
    """The record with its digest as the last member."""
    return {**record, DIGEST: digest_of(record)}


def unsealed(found: Field) -> Field:
    """The record without its digest, which is checked.

    Raises:
        InputError (as `found.source.error`): there is no digest, or the record was changed.
    """
    members = found.members()
    if DIGEST not in members:
        raise found.source.wrong(f"`{DIGEST}` is not there, which every saved file has")
    record = {name: value for name, value in found.value.items() if name != DIGEST}
    if members[DIGEST].text() != digest_of(record):
        raise found.source.wrong("it was changed after it was written: its content does not match its `digest`")
    return replace(found, value=record)


def outdated(number: object, known: int, otherwise: str) -> str:
    """What to do about a file of another format than the one that is `known`. otherwise: where it is no newer one."""
    newer = isinstance(number, int) and not isinstance(number, bool) and number > known
    return "it was written by a newer nasprune; read it with that one" if newer else otherwise


def digest_of(record: Mapping[str, object]) -> str:
    """64 hexadecimal digits over a record of plain values, whatever the order of its members."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_of_bytes(content: bytes) -> str:
    """64 hexadecimal digits over the content of a file."""
    return hashlib.sha256(content).hexdigest()


def check_bound(path: Path, digest: Field, what: str, then: str, mixed: str = MIXED) -> None:
    """Nothing where `path` is the file whose digest was recorded when both were saved.

    Args:
        what: the file is, for messages. then: what to do where it cannot be read; mixed: where it is another.

    Raises:
        InputError: it is another file, or cannot be read.
    """
    expected = digest.text()
    with opened(path, what, then) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise InputError(
            f"{what} {str(path)!r} are damaged or from another save: they are not the file that {digest.source.name} "
            f"was saved with (digest {found[:12]}…, recorded {shown(expected[:12])}); {mixed}"
        )
