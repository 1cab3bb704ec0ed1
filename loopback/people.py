"""What people do: use commands, press buttons, fill in forms, talk. Tests and the page act through this."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from loopback import limits, posting
from loopback.gateway import Gateway
from loopback.interactions import AUTOCOMPLETE, COMMAND, COMPONENT, MODAL_SUBMIT
from loopback.options import NotSent, Resolver, command_data, context_data, modal_data, selected
from loopback.values import Channel, File, Interaction, Json, Message, User
from loopback.world import World

T = TypeVar("T")

LOOK_AGAIN_S = 0.02

SLASH, USER_MENU, MESSAGE_MENU = 1, 2, 3


class People:
    """Acts as any user of the world."""

    def __init__(self, world: World, gateway: Gateway) -> None:
        self.world = world
        self._gateway = gateway

    async def wait_for(self, condition: Callable[[], T | None], timeout: float = 10.0) -> T:  # noqa: ASYNC109 - it says what it gave up waiting for
        """Wait until `condition` holds and return what it gave; it is looked at again at every change of the world.

        Raises:
            TimeoutError: it did not hold within `timeout` real seconds.
        """
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"what was waited for did not happen within {timeout:g} s")
            # The condition may look at the bot as well, of whose changes nobody tells.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self.world.change()
        return found

    async def command(self, user: User, channel: Channel, name: str, options: dict[str, Any] | None = None) -> Interaction:
        """Use a slash command, once the bot is connected and has registered it; `name` may lead to a subcommand: "history show".

        Raises:
            NotSent: Discord's client would not send these options.
        """
        definition, path = await self._known(SLASH, name, channel)
        data = command_data(Resolver(self.world, channel, user), definition, path, options or {})
        return self._start(user, channel, COMMAND, data, name)

    async def autocomplete(self, user: User, channel: Channel, name: str, options: dict[str, Any], focused: str) -> list[Json]:
        """Return the choices that the bot offers while `focused` is being typed."""
        definition, path = await self._known(SLASH, name, channel)
        data = command_data(Resolver(self.world, channel, user), definition, path, options, focused)
        use = self._start(user, channel, AUTOCOMPLETE, data, name)
        await self.wait_for(lambda: use.acknowledged.is_set() or use.missed)
        return use.choices or []

    async def context_menu(self, user: User, channel: Channel, target: Message | User, name: str) -> Interaction:
        """Use a command from the menu of a message or a user."""
        definition, _ = await self._known(MESSAGE_MENU if isinstance(target, Message) else USER_MENU, name, channel)
        resolver = Resolver(self.world, channel, user)
        if isinstance(target, Message):
            # A message that somebody chooses is shown to the bot in full.
            resolver.resolved["messages"] = {str(target.id): target.raw}
        else:
            resolver.user(target)
        data = context_data(definition, str(target.id), resolver)
        return self._start(user, channel, COMMAND, data, name)

    async def press(self, user: User, message: Message, custom_id: str, values: Sequence[Any] | None = None) -> Interaction:
        """Press a button, or choose `values` in a select menu: roles, channels, people or texts, also ids as texts."""
        part = next((part for _, part in limits.walk(message.components, "") if part.get("custom_id") == custom_id), None)
        if part is None or message.deleted or message.visible_to not in (None, user.id):
            raise NotSent("this message shows no such button")
        if part.get("disabled"):
            raise NotSent("this button is disabled")
        await self._bot_is_there()
        data: Json = {"custom_id": custom_id, "component_type": part["type"], "id": part["id"]}
        if part["type"] != limits.BUTTON:
            resolver = Resolver(self.world, message.channel, user)
            data["values"] = selected(resolver, part, list(values or []))
            data |= {"resolved": resolver.resolved} if resolver.resolved else {}
        return self._start(user, message.channel, COMPONENT, data, custom_id, message)

    async def submit_modal(self, user: User, interaction: Interaction, values: dict[str, Any]) -> Interaction:
        """Send the modal that answered `interaction`, with a value for each custom id."""
        if interaction.modal is None or interaction.user is not user:
            raise NotSent("no form is open")
        self._is_there(interaction.channel)
        await self._bot_is_there()
        data = modal_data(Resolver(self.world, interaction.channel, user), interaction.modal, values)
        return self._start(user, interaction.channel, MODAL_SUBMIT, data, interaction.modal["custom_id"], interaction.source)

    async def say(self, user: User, channel: Channel, text: str, reply_to: Message | None = None, files: Sequence[File] = ()) -> Message:
        """Write a message, as a reply if there is something to reply to."""
        self._is_there(channel)
        sent = dict(enumerate(files))
        return posting.create(self.world, channel, user, {"content": text}, sent, reply_to=reply_to.id if reply_to else None)

    async def react(self, user: User, message: Message, emoji: str) -> None:
        """Put a reaction under a message."""
        self.world.react(message, emoji, user)

    async def unreact(self, user: User, message: Message, emoji: str) -> None:
        """Take a reaction back."""
        self.world.unreact(message, emoji, user)

    async def clear_reactions(self, message: Message, emoji: str | None = None) -> None:
        """Take away everybody's reactions, or those with one emoji, as a moderator does."""
        self.world.clear_reactions(message, emoji)

    async def delete(self, message: Message) -> None:
        """Delete a message, as its author or a moderator does."""
        self.world.delete_message(message)

    async def delete_many(self, messages: Sequence[Message]) -> None:
        """Delete messages at a stroke, as moderation bots do; the bot hears of those of one channel together.

        Raises:
            NotSent: in direct messages they go one by one.
        """
        channels = {message.channel.id: message.channel for message in messages}
        if any(channel.recipient for channel in channels.values()):
            raise NotSent("direct messages are deleted one by one")
        for channel in channels.values():
            self.world.delete_messages(channel, [message for message in messages if message.channel is channel])

    def find_command(self, kind: int, name: str) -> Json | None:
        """Return the definition of a command; the guild's own hides a global one of the same name."""
        both = self.world.commands[self.world.guild.id] + self.world.commands[None]
        return next((command for command in both if command["type"] == kind and command["name"] == name), None)

    async def _known(self, kind: int, name: str, channel: Channel) -> tuple[Json, list[str]]:
        self._is_there(channel)
        await self._bot_is_there()
        first, *path = name.split() if kind == SLASH else [name]
        definition = await self.wait_for(lambda: self.find_command(kind, first))
        return self._installed(kind, first, channel) if channel.foreign else definition, path

    def _installed(self, kind: int, name: str, channel: Channel) -> Json:
        """Return the definition of a command that people have installed for themselves and may use where the bot is not."""
        context = 0 if channel.guild_id else 2
        # The guild's own commands are not offered elsewhere.
        for command in self.world.commands[None]:
            contexts = command.get("contexts")
            offered = 1 in (command.get("integration_types") or []) and (contexts is None or context in contexts)
            if offered and command["type"] == kind and command["name"] == name:
                return command
        raise NotSent("this command is not installed for you here")

    @staticmethod
    def _is_there(channel: Channel) -> None:
        if channel.deleted:
            raise NotSent("this channel is gone")

    def _bot_is_there(self) -> Awaitable[Any]:
        return self.wait_for(lambda: self._gateway.sessions)

    def _start(self, user: User, channel: Channel, kind: int, data: Json, name: str, source: Message | None = None) -> Interaction:
        token = secrets.token_urlsafe(48)
        use = Interaction(self.world.snowflake(), token, kind, user, channel, self.world.clock.now(), data, name, source, locale=user.locale)
        self.world.add_interaction(use)
        return use
