"""What Discord answers when it refuses: an HTTP status, its own code and a sentence."""

from typing import Any


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, code: int, message: str, errors: dict[str, Any] | None = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.body: dict[str, Any] = {"message": message, "code": code}
        if errors:
            self.body["errors"] = errors


def invalid(path: str, code: str, message: str) -> Refusal:
    """Return the answer to a body with one wrong value; `path` has dots, as in "data.content"."""
    errors: dict[str, Any] = {"_errors": [{"code": code, "message": message}]}
    for key in reversed(path.split(".") if path else []):
        errors = {key: errors}
    return Refusal(400, 50035, "Invalid Form Body", errors)


def unauthorized() -> Refusal:
    return Refusal(401, 0, "401: Unauthorized")


def no_such_path() -> Refusal:
    return Refusal(404, 0, "404: Not Found")


def unknown_channel() -> Refusal:
    return Refusal(404, 10003, "Unknown Channel")


def unknown_guild() -> Refusal:
    return Refusal(404, 10004, "Unknown Guild")


def unknown_member() -> Refusal:
    return Refusal(404, 10007, "Unknown Member")


def unknown_message() -> Refusal:
    return Refusal(404, 10008, "Unknown Message")


def unknown_user() -> Refusal:
    return Refusal(404, 10013, "Unknown User")


def unknown_webhook() -> Refusal:
    return Refusal(404, 10015, "Unknown Webhook")


def unknown_interaction() -> Refusal:
    return Refusal(404, 10062, "Unknown interaction")


def unknown_command() -> Refusal:
    return Refusal(404, 10063, "Unknown application command")


def too_large() -> Refusal:
    return Refusal(413, 40005, "Request entity too large")


def acknowledged_already() -> Refusal:
    return Refusal(400, 40060, "Interaction has already been acknowledged.")


def missing_access() -> Refusal:
    return Refusal(403, 50001, "Missing Access")


def not_yours() -> Refusal:
    return Refusal(403, 50005, "Cannot edit a message authored by another user")


def empty_message() -> Refusal:
    return Refusal(400, 50006, "Cannot send an empty message")


def closed_dm() -> Refusal:
    return Refusal(403, 50007, "Cannot send messages to this user")


def only_in_guilds() -> Refusal:
    return Refusal(403, 50003, "Cannot execute action on a DM channel")


def missing_permissions() -> Refusal:
    return Refusal(403, 50013, "Missing Permissions")


def wrong_channel_type() -> Refusal:
    return Refusal(400, 50024, "Cannot execute action on this channel type")


def dead_token() -> Refusal:
    return Refusal(401, 50027, "Invalid Webhook Token")


def too_many_follow_ups() -> Refusal:
    return Refusal(400, 40094, "This interaction has reached its maximum number of follow up messages.")


def unreadable_reference() -> Refusal:
    return Refusal(400, 160002, "Cannot reply without permission to read message history")
