"""What can be asked of DALL·E Mini beside what every request says."""

from dataclasses import dataclass

from engine.errors import InvalidRequest
from engine.jobs import check_range

TEMPERATURE_LIMIT = 100.0
ROWS = 16
"""Of a picture's tokens."""


@dataclass(frozen=True, slots=True)
class MiniSettings:
    """How tokens are drawn; None leaves a choice to the model.

    `temperature`, above 0, prefers likely tokens the lower it is; each is one of the `top_k` likeliest. `seamless` paints all pictures of a request
    as one, so that each goes on in its neighbours in the grid. A variation keeps the first `rows` of 16 of `tokens`, or of those that are in the
    receipt of the picture that is handed in.

    Raises:
        InvalidRequest: a value is outside its range. How many tokens there are only the model knows.
    """

    temperature: float | None = None
    top_k: int | None = None
    seamless: bool = False
    rows: int = 8
    tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature <= TEMPERATURE_LIMIT:
            raise InvalidRequest("temperature", "be above 0 and at most {most:g}, not {value:g}", most=TEMPERATURE_LIMIT, value=self.temperature)
        if self.top_k is not None and self.top_k < 1:
            raise InvalidRequest("top_k", "be at least 1, not {value}", value=self.top_k)
        check_range("rows", self.rows, 1, ROWS - 1)
