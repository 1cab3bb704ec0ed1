"""From what went wrong to a sentence for the person who asked."""

from engine.errors import Broken, Cancelled, EngineError, InvalidRequest, Misconfigured, QueueFull, Refused, TooManyJobs


class PermissionsMissing(Refused):
    """The bot may not post pictures in the place where they were asked for."""

    def __init__(self, permissions: list[str]) -> None:
        super().__init__(f"missing permissions: {', '.join(permissions)}")
        self.names = ", ".join(f"**{name.replace('_', ' ').title()}**" for name in permissions)


class GridTooLarge(Refused):
    """The grid could be larger than the place takes."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the grid may exceed {limit_bytes} bytes")
        self.limit_mib = f"{limit_bytes / 2**20:.1f}"


class Undeliverable(EngineError):
    """No place takes what was painted: not the channel, not the interaction, not the person's direct messages."""


class OldCommand(Refused):
    """A person's Discord shows a command as it was before it changed."""


SENTENCES: dict[type[EngineError], str] = {
    EngineError: "Something went wrong on my side. Try again in a minute.",
    Refused: "I can't do that.",
    InvalidRequest: "The {field} must {expectation}.",
    PermissionsMissing: "I can't post pictures here. Ask a moderator to give me, in this channel: {names}.",
    GridTooLarge: "So many pictures could be larger than the {limit_mib} MiB that fit into a message here. Ask for fewer.",
    OldCommand: "This command has changed. Reload Discord (Ctrl+R, or close and open the app), then try again.",
    QueueFull: "So many people are waiting ({limit} jobs) that I can't take another one just now. Try again in some minutes.",
    TooManyJobs: "You already have {limit} jobs on the way. Wait for one to be finished.",
    Misconfigured: "I am not set up right. The operator finds the reason in my log.",
    Cancelled: "Cancelled.",
    Undeliverable: "Your pictures are painted, but I may post neither here nor to you directly. Ask a moderator to let me, then try again.",
    Broken: "Something broke on my side; it is not your fault. Try again, and if it happens again, tell the operator the reference `{reference}`.",
}


def sentence(error: EngineError) -> str:
    """Return the most specific sentence for an error."""
    kind = next(kind for kind in type(error).__mro__ if kind in SENTENCES)
    return SENTENCES[kind].format_map(vars(error))
