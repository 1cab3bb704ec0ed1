"""Endpoints that answer interactions: the callback, and the webhook that an interaction's token opens for 15 minutes."""

from loopback import limits, posting, wire
from loopback.api import Api, Call
from loopback.refusals import (
    acknowledged_already,
    dead_token,
    invalid,
    too_many_follow_ups,
    unknown_channel,
    unknown_interaction,
    unknown_message,
    unknown_webhook,
)
from loopback.values import ACK_LIMIT_S, EPHEMERAL, LOADING, TOKEN_LIFE_S, Interaction, Json, Message
from loopback.world import World

COMMAND, COMPONENT, AUTOCOMPLETE, MODAL_SUBMIT = 2, 3, 4, 5
"""Types of interactions."""
MESSAGE, DEFER, DEFER_UPDATE, UPDATE, CHOICES, MODAL = 4, 5, 6, 7, 8, 9
"""Types of answers."""
FOLLOW_UPS_ABROAD = 5
"""Of an interaction in a place that the bot is not in."""
WEBHOOK = "/webhooks/{application}/{token}"


class Answers:
    """Serves /interactions and /webhooks."""

    def __init__(self, world: World, api: Api) -> None:
        self._world = world
        api.route("POST", "/interactions/{interaction}/{token}/callback", self.callback, open_to_all=True)
        api.route("POST", WEBHOOK, self.follow_up, open_to_all=True)
        api.route("GET", WEBHOOK + "/messages/{message}", self.get, open_to_all=True)
        api.route("PATCH", WEBHOOK + "/messages/{message}", self.edit, open_to_all=True)
        api.route("DELETE", WEBHOOK + "/messages/{message}", self.delete, open_to_all=True)

    # The first answer.

    def callback(self, call: Call) -> Json | None:
        use = self._world.interactions.get(call.params["token"])
        if use is None or use.id != call.id("interaction"):
            raise unknown_interaction()
        if use.acknowledged.is_set():
            raise acknowledged_already()
        after = self._world.clock.now() - use.created_at
        if use.dead or use.missed or after > ACK_LIMIT_S:
            raise unknown_interaction()
        if use.channel.deleted:
            raise unknown_channel()
        kind = call.body.get("type")
        if kind not in self._allowed(use):
            raise invalid("type", "INTERACTION_CALLBACK_TYPE", "This type does not answer this interaction")
        self._apply(use, int(kind), call)
        use.response_type = kind
        use.acknowledged_after_s = after
        use.acknowledged.set()
        self._world.emit("interaction", use)
        return self._receipt(use) if call.query.get("with_response") in ("1", "true", "True") else None

    def _allowed(self, use: Interaction) -> tuple[int, ...]:
        if use.type == AUTOCOMPLETE:
            return (CHOICES,)
        updates = (DEFER_UPDATE, UPDATE) if use.source and use.type in (COMPONENT, MODAL_SUBMIT) else ()
        return (MESSAGE, DEFER, *updates) + ((MODAL,) if use.type != MODAL_SUBMIT else ())

    def _apply(self, use: Interaction, kind: int, call: Call) -> None:
        data = call.body.get("data") or {}
        if kind in (MESSAGE, DEFER):
            # A deferred answer carries nothing but its visibility.
            body = data if kind == MESSAGE else {"flags": (data.get("flags") or 0) & EPHEMERAL}
            extra = LOADING if kind == DEFER else 0
            use.message = posting.create(self._world, use.channel, self._world.bot, body, call.files, use, "data.", flags=extra)
        elif kind in (DEFER_UPDATE, UPDATE):
            use.message = use.source
            if kind == UPDATE and use.source:
                self._still_there(use.source)
                posting.edit(self._world, use.source, data, call.files, "data.")
        elif kind == CHOICES:
            limits.check_choices("data.choices", data.get("choices") or [])
            use.choices = data.get("choices") or []
        else:
            limits.check_modal(data)
            use.modal = data | {"components": posting.numbered(data["components"])}

    def _receipt(self, use: Interaction) -> Json:
        message = use.message if use.response_type in (MESSAGE, DEFER, UPDATE) else None
        told: Json = {"id": str(use.id), "type": use.type}
        receipt: Json = {"interaction": told}
        if message:
            told |= {
                "response_message_id": str(message.id),
                "response_message_loading": message.thinking,
                "response_message_ephemeral": message.ephemeral,
            }
            receipt["resource"] = {"type": use.response_type, "message": wire.message(self._world, message)}
        return receipt

    # What follows.

    def _use(self, call: Call) -> Interaction:
        use = self._world.interactions.get(call.params["token"])
        if use is None or call.id("application") != self._world.bot.id:
            raise unknown_webhook() if use else dead_token()
        if use.dead or use.missed or self._world.clock.now() - use.created_at > TOKEN_LIFE_S:
            raise dead_token()
        if not use.acknowledged.is_set():
            raise unknown_webhook()
        if use.channel.deleted:
            raise unknown_channel()
        return use

    def _message(self, call: Call) -> Message:
        use = self._use(call)
        message = use.message
        if call.params["message"] != "@original":
            mine = [*use.followups, *([use.message] if use.message else [])]
            message = next((message for message in mine if message.id == call.id("message")), None)
        if message is None:
            raise unknown_message()
        return self._still_there(message)

    def _still_there(self, message: Message) -> Message:
        if message.deleted:
            raise unknown_message()
        return message

    def get(self, call: Call) -> Json:
        return wire.message(self._world, self._message(call))

    def edit(self, call: Call) -> Json:
        message = self._message(call)
        posting.edit(self._world, message, call.body, call.files)
        return wire.message(self._world, message)

    def delete(self, call: Call) -> None:
        self._world.delete_message(self._message(call))

    def follow_up(self, call: Call) -> Json:
        """Post one more message; after a deferral the first one becomes the answer that was promised."""
        use = self._use(call)
        if use.message and use.message.thinking and not use.message.deleted:
            posting.edit(self._world, use.message, call.body, call.files)
            return wire.message(self._world, use.message)
        if use.channel.foreign and len(use.followups) >= FOLLOW_UPS_ABROAD:
            raise too_many_follow_ups()
        message = posting.create(self._world, use.channel, self._world.bot, call.body, call.files, use)
        use.followups.append(message)
        self._world.touch()
        return wire.message(self._world, message)
