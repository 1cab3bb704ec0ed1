"""What the studio may ask of Discord's side of the house, and the values that cross there. Neither side imports the other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Declined(Exception):
    """Discord's side says no, in a sentence for the person who asked."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel of Discord that pictures of the studio may be posted to."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture that somebody was sent a link to, to paint over what is to be repainted of it.

    `prompt` is what it says so far; `channel` is where the result will be posted; `expires_at` is in Unix seconds.
    """

    user_id: int
    picture: bytes = field(repr=False)
    prompt: str
    channel: str
    expires_at: float


class Neighbour(Protocol):
    """What Discord's side does for the studio."""

    def channels(self) -> Sequence[Channel]:
        """Return the channels that people of the studio may post to, and where the bot may."""
        ...

    async def post(self, channel_id: int, job_id: int, position: int, with_prompt: bool) -> None:
        """Post a picture of the studio's.

        Raises:
            Declined: it may not be posted there, or Discord does not take it.
        """
        ...

    async def sheet(self, token: str) -> Sheet | None:
        """Return what a link leads to; None where there was never such a one, it was used, or it is too old."""
        ...

    async def paint(self, token: str, prompt: str, mask: bytes) -> None:
        """Have what was painted over repainted, which uses the link up.

        Raises:
            Declined: it cannot be done; the link stays as it is.
        """
        ...
