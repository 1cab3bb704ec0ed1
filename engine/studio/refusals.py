"""From what went wrong to a status and one plain sentence, for programs and the people who write them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import Broken, Cancelled, EngineError, InvalidRequest, Misconfigured, QueueFull, Refused, Repeated, TooManyJobs
from engine.jobs import WEIGHT_LIMIT

SHOWN = 60
"""Characters of what somebody wrote that are repeated to them."""
LATER_S = 30
"""After so long somebody may ask again where too many ask."""


class Refusal(Exception):
    """An answer that says why there is no other one."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = dict(headers or {})


class BadPicture(InvalidRequest):
    """What is handed in as a picture, or says where one is, cannot be used."""


SENTENCES: dict[type[EngineError], str] = {
    EngineError: "Something went wrong here.",
    QueueFull: "{limit} jobs are waiting already. Ask again in some minutes.",
    TooManyJobs: "You have {limit} unfinished jobs, and others are waiting too. Ask again when one is finished.",
    Repeated: "This id is taken by another request of yours.",
    Misconfigured: "The model is not set up right. The operator finds the reason in the log.",
    Cancelled: "Canceled.",
    Broken: "Something broke here; it is not your fault. Ask again, and if it happens again, tell the operator the reference {reference}.",
}
STATUSES: dict[type[EngineError], int] = {EngineError: 500, Refused: 422, Repeated: 409, QueueFull: 429, TooManyJobs: 429}


def sentence(error: EngineError) -> str:
    """Return the most specific sentence for an error."""
    if isinstance(error, InvalidRequest):
        return plain(f"{error}.")
    kind = next(kind for kind in type(error).__mro__ if kind in SENTENCES)
    return SENTENCES[kind].format_map(vars(error))


def refusal_of(error: EngineError) -> Refusal:
    """Return the answer to a request that cannot be taken in."""
    status = STATUSES[next(kind for kind in type(error).__mro__ if kind in STATUSES)]
    return Refusal(status, sentence(error), {"Retry-After": str(LATER_S)} if status == 429 else None)


def sentence_of(findings: Sequence[Mapping[str, Any]]) -> str:
    """Say the first of pydantic's findings; what was written is not repeated, but for the name of what is not known."""
    # Of several forms that were tried, the one that got furthest is the one that was meant.
    tried = [one for one in findings if one["loc"][:1] == findings[0]["loc"][:1]]
    finding = max(tried, key=lambda one: (len(one["loc"]), not str(one["type"]).endswith(("_type", "_pattern_mismatch"))))
    # What follows in it says which of several forms was tried, or which of several values is wrong.
    where = plain(str(finding["loc"][0])) if finding["loc"] else "The body"
    nested = len(finding["loc"]) > 1 and where in ("ingredients", "start", "end")
    match finding["type"]:
        case "missing" | "extra_forbidden" if nested:
            return f"{where} must hold an image or a prompt, and at most a weight from above 0 to {WEIGHT_LIMIT:g} beside it."
        case "missing":
            return f"{where} must be given."
        case "extra_forbidden":
            return f"{where} is not known here."
        case "string_pattern_mismatch" if where.endswith("prompt"):
            return f"{where} must hold at least one word."
        case _:
            told = re.sub(r"^(Input|String|Value|List|Tuple|Dictionary|Data)\b.*? should ", "must ", str(finding["msg"]))
            if not told.startswith("must "):
                return f"{where} is not what it must be: {told[0].lower()}{told[1:]}."
            return f"{where} {told}."


def plain(text: str) -> str:
    """Return a text that can be sent and shown: whole characters, one line, not too long."""
    whole = " ".join(text.encode(errors="replace").decode().split())
    return whole if len(whole) <= 4 * SHOWN else whole[: 4 * SHOWN - 1] + "…"
