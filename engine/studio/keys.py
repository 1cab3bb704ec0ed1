"""Who may ask: people with keys, how much each may ask for, and how a key is told."""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who asks over HTTP, by the name that their key goes by; a new key in the place of an old one changes nothing."""

    name: str

    @property
    def id(self) -> int:
        """What the queue and the memory know them by: the same in every run, and negative, which no snowflake of Discord's is."""
        return -1 - (int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8]) >> 2)


ANYBODY = Person("")
"""Everybody on this machine, where there are no keys: names are never empty."""


class Keys:
    """Tells people by their keys; without any, whoever can ask at all is the same person."""

    def __init__(self, keys: Mapping[str, SecretStr]) -> None:
        self._digests = {name: digest_of(key.get_secret_value()) for name, key in keys.items()}

    def __bool__(self) -> bool:
        return bool(self._digests)

    def person(self, authorization: str | None) -> Person | None:
        """Return who sent a header `Authorization`; None where nobody can be told by it."""
        if not self._digests:
            return ANYBODY
        name, key = told_by(authorization or "")
        wanted, found = digest_of(key), None
        for known, digest in self._digests.items():
            # All are compared, and each in the same time, so that an answer says nothing of how near a guess was.
            if hmac.compare_digest(wanted, digest) and name in (None, known):
                found = known
        return None if found is None else Person(found)


def digest_of(key: str) -> bytes:
    """Return a key as it is compared: of one length."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def told_by(authorization: str) -> tuple[str | None, str]:
    """Read a header: `Bearer KEY`, as programs send it, or a name and a key as browsers do (`Basic`); the name is None where none is told."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return None, rest.strip()
    if scheme.lower() == "basic":
        try:
            name, _, key = base64.b64decode(rest, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return "", ""
        return name, key
    return "", ""


class Rate:
    """How often each person may ask: so many times a minute, all of them at once too (a token bucket)."""

    def __init__(self, per_minute: int) -> None:
        self._most = per_minute
        self._left: dict[int, tuple[float, float]] = {}
        """How many times each may ask just now, and when that was noted, in seconds of the monotonic clock."""

    def wait_s(self, person: Person) -> float:
        """Count one request, and return 0; where there are too many, count none and return how long to wait."""
        now = time.monotonic()
        left, noted = self._left.get(person.id, (float(self._most), now))
        left = min(left + (now - noted) * self._most / MINUTE_S, float(self._most))
        self._left[person.id] = (left - 1 if left >= 1 else left, now)
        return 0.0 if left >= 1 else (1 - left) * MINUTE_S / self._most
