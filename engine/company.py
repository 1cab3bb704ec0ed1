"""Painters that paint one request after the other, for whoever works with companies. No torch, no Discord."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.jobs import Painting, Report, Request


@dataclass(eq=False, slots=True)
class Turn:
    """The ticket of a painter that paints one request after the other."""

    request: Request
    report: Report
    result: Painting | None = None
    error: Exception | None = None
    busy_s: float = 0.0


class InTurn:
    """A company of one, for painters that paint a request in one go."""

    def __init__(self, paint: Callable[[Request, Report], Painting]) -> None:
        self._paint = paint
        self._turn: Turn | None = None

    @property
    def has_room(self) -> bool:
        """Whether nobody is here."""
        return self._turn is None

    def join(self, request: Request, report: Report) -> Turn:
        """Begin with a request; the one before must be done."""
        assert self._turn is None
        self._turn = Turn(request, report)
        return self._turn

    def step(self) -> Sequence[Turn]:
        """Paint the request."""
        turn, self._turn = self._turn, None
        if turn is None:
            return []
        try:
            turn.result = self._paint(turn.request, turn.report)
            turn.busy_s = turn.result.seconds
        except Exception as error:
            turn.error = error
        return [turn]

    def drop(self, ticket: Turn) -> None:
        """Forget the request, before it is painted."""
        self._turn = None
