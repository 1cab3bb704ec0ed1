"""Whether a picture is what its receipt says: painted again from it, and compared.

A receipt is text that anybody can write: everything in it is read as if a stranger asked for it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from engine import pictures, uploads
from engine.errors import InvalidRequest
from engine.jobs import INGREDIENTS_LIMIT, Report
from engine.options import ALWAYS, Options, Solver
from engine.unclip import operations
from engine.unclip.commissions import Commission, told
from engine.unclip.company import Course
from engine.uploads import Framing
from engine.verdicts import Finding, Verdict, compare

if TYPE_CHECKING:
    from engine.unclip.painter import Painter

NOT_COMPARED = ("model_hash", "computed")
"""Facts that may differ: they are what is reported."""


def verifying(painter: "Painter", png: bytes, sources: Sequence[bytes], report: Report) -> Course[Verdict]:
    """Paint a picture again and compare; see `Painter.verify`."""
    receipt = uploads.receipt_of(png)
    if "seed" not in receipt or "model" not in receipt:
        raise InvalidRequest("picture", "carry a receipt, as the file that was sent; this one carries none")
    known = receipt.get("model_hash")
    same_model = None if known is None else known == painter.parts.fingerprint
    if same_model is False or (same_model is None and receipt["model"] != painter.model):
        return Verdict(Finding.OTHER_MODEL, same_model)
    [painted] = yield from painter.work(followed(painter, receipt, sources), report)
    finding, largest, mean = compare(uploads.open_picture(png), painted.image)
    now = {"version": pictures.VERSION, "computed": painter.parts.computed}
    differs = tuple(name for name, value in now.items() if receipt.get(name, value) != value)
    return Verdict(finding, same_model, largest, mean, differs, painted.picture.png)


def followed(painter: "Painter", receipt: dict[str, str], sources: Sequence[bytes]) -> Commission:
    """Return a commission of the one sample that a receipt describes: whose own receipt would say the same.

    Raises:
        InvalidRequest: the receipt is damaged, says what no request may ask for, or does not say all that it takes, or a source is missing.
    """
    try:
        asked = options_of(painter, receipt)
        # A receipt names the solver of each stage, a request one for all or none.
        for solver in (None, *sorted({Solver(name) for name in [*listed(receipt["solver"]), *listed(receipt.get("prior_solver", ""))]})):
            commission = commissioned(painter, receipt, sources, replace(asked, solver=solver))
            settings = painter.settings(commission.how)[commission.first - 1 :]
            for sample in commission.wanted:
                if agree(told(commission.facts | sample.facts | painter.facts(sample, commission.how, settings)), receipt):
                    return replace(commission, wanted=[sample])
    except (ValueError, KeyError, OverflowError):
        raise InvalidRequest("receipt", "be whole; this one holds values that cannot be read") from None
    raise unrepeatable(painter)


def unrepeatable(painter: "Painter") -> InvalidRequest:
    """Return the refusal of a receipt that cannot be followed."""
    return InvalidRequest("picture", "be one that {model} can paint again; its receipt does not say all that it takes", model=painter.model)


def agree(facts: dict[str, str], receipt: dict[str, str]) -> bool:
    """Tell whether a receipt says everything that a sample's own one would; those of earlier versions do not name an operation."""
    return all(receipt.get(key) == value for key, value in facts.items() if key not in NOT_COMPARED and (key != "operation" or key in receipt))


def listed(text: str) -> list[str]:
    """Return the values of a list on a receipt."""
    return text.split(", ") if text else []


def options_of(painter: "Painter", receipt: dict[str, str]) -> Options:
    """Read how a sample was painted.

    Raises:
        InvalidRequest: a value is outside its range.
        ValueError: one is no number.
        KeyError: one is missing.
    """
    steps, guidance = [int(one) for one in listed(receipt["steps"])], [float(one) for one in listed(receipt["guidance"])]
    own = painter.parts.settings[-len(steps) :] if steps else ()
    # Receipts of enlarged pictures tell of the last unets only.
    before: list[None] = [None] * (len(painter.parts.settings) - len(steps))
    numbers = {name: int(receipt[name]) for name in ("prior_seed", "candidates", "resamples") if name in receipt}
    prior = painter.parts.prior_setting
    prior_steps = int(receipt["prior_steps"]) if "prior_steps" in receipt else None
    prior_guidance = float(receipt["prior_guidance"]) if "prior_guidance" in receipt else None
    return Options(
        count=1,
        drafts=int(receipt.get("drafts", 1)),
        seed=int(receipt["seed"]),
        # What a model does by itself may be more than anybody may ask for.
        steps=[*before, *(None if value == usual.steps else value for value, usual in zip(steps, own, strict=True))],
        guidance=[*before, *(None if value == usual.guidance else value for value, usual in zip(guidance, own, strict=True))],
        prior_steps=None if prior_steps == prior.steps else prior_steps,
        prior_guidance=None if prior_guidance == prior.guidance else prior_guidance,
        guidance_interval=[float(one) for one in listed(receipt["guidance_interval"])] if "guidance_interval" in receipt else ALWAYS,
        **numbers,  # type: ignore[arg-type]  # mypy takes the three whole numbers for any field
    )


def commissioned(painter: "Painter", receipt: dict[str, str], sources: Sequence[bytes], how: Options) -> Commission:
    """Ask for what a receipt says was asked for.

    Raises:
        InvalidRequest: it cannot be asked for, or not all sources are there.
        ValueError: a value is no number.
        KeyError: one is missing.
    """
    prompt, framing = receipt.get("prompt", ""), Framing(receipt.get("framing", Framing.CROP))

    def given() -> Sequence[bytes]:
        return checked_sources(sources, listed(receipt["sources"]))

    def number(name: str) -> float:
        return float(receipt[name])

    match receipt.get("operation", "dream" if "prior_seed" in receipt else ""):
        case "dream":
            return operations.dream(painter, [prompt], how)
        case "variation":
            strength, drift = number("strength") if "strength" in receipt else None, number("drift") if "drift" in receipt else 0.0
            return operations.variation(painter, given(), prompt, framing, how, strength, drift)
        case "inpaint":
            image, mask = [*given(), None][:2]
            return operations.inpaint(painter, image or b"", mask, prompt, framing, how)
        case "upscale":
            return operations.upscale(painter, given(), prompt, framing, how)
        case "blend":
            return operations.blend(painter, ingredients_of(receipt, sources), [float(one) for one in listed(receipt["weights"])], framing, how)
        case "morph":
            start, end = ingredients_of(receipt, sources)
            return operations.morph(painter, start, end, int(receipt["frames"]), framing, how)
        case "edit":
            return operations.edit(painter, given()[0], receipt["before"], prompt, number("strength"), framing, how)
        case "explore" if "sources" in receipt and "neighbours" not in receipt:
            return operations.explore(painter, given()[0], number("step"), None, framing, how)
        case _:
            raise unrepeatable(painter)


def ingredients_of(receipt: dict[str, str], sources: Sequence[bytes]) -> list[bytes | str]:
    """Return the pictures and prompts that an embedding was made of.

    Raises:
        InvalidRequest: a picture is missing.
    """
    names = [name for number in range(1, INGREDIENTS_LIMIT + 1) for name in (f"text_{number}", f"picture_{number}") if name in receipt]
    files = iter(checked_sources(sources, [receipt[name] for name in names if name.startswith("picture")]))
    return [next(files) if name.startswith("picture") else receipt[name] for name in names]


def checked_sources(sources: Sequence[bytes], hashes: Sequence[str]) -> Sequence[bytes]:
    """Make sure that files are those that a receipt names.

    Raises:
        InvalidRequest: they are not.
    """
    if [pictures.hash_of(source) for source in sources] != list(hashes):
        raise InvalidRequest("sources", "be the files that the picture was made from, in their order; they are {count}", count=len(hashes))
    return sources
