"""Endpoints about the bot itself, its commands and its guild."""

from collections.abc import Callable
from typing import Any

from loopback import limits, wire
from loopback.api import Api, Call
from loopback.refusals import invalid, missing_access, unknown_guild, unknown_member, unknown_user
from loopback.values import Json
from loopback.world import World

CONTENT_LIMITED = 1 << 19
"""Application flag: may read message content, as a bot in fewer than 100 servers."""


class Rest:
    """Serves /users, /oauth2, /applications, /gateway and /guilds."""

    def __init__(self, world: World, api: Api, gateway_url: Callable[[], str], message_content: bool) -> None:
        self._world = world
        self._gateway_url = gateway_url
        self.flags = CONTENT_LIMITED if message_content else 0
        for path in ("/applications/@me", "/oauth2/applications/@me"):
            api.route("GET", path, self.application)
        api.route("GET", "/users/@me", lambda call: wire.user(world.bot) | {"flags": 0, "mfa_enabled": True, "verified": True})
        api.route("GET", "/users/@me/guilds", lambda call: [{"id": str(world.guild.id), "name": world.guild.name, "icon": None}])
        api.route("GET", "/users/{user}", self.user)
        api.route("POST", "/users/@me/channels", self.open_dm)
        api.route("GET", "/gateway", lambda call: {"url": gateway_url()}, open_to_all=True)
        api.route("GET", "/gateway/bot", self.gateway)
        for path in ("/applications/{application}/commands", "/applications/{application}/guilds/{guild}/commands"):
            api.route("GET", path, self.commands)
            api.route("PUT", path, self.set_commands)
        api.route("GET", "/guilds/{guild}", self.guild)
        api.route("GET", "/guilds/{guild}/channels", self.channels)
        api.route("GET", "/guilds/{guild}/roles", lambda call: self.guild(call)["roles"])
        api.route("GET", "/guilds/{guild}/members", self.members)
        api.route("GET", "/guilds/{guild}/members/{user}", self.member)

    def application(self, call: Call) -> Json:
        bot = self._world.bot
        return {
            "id": str(bot.id),
            "name": bot.name,
            "icon": None,
            "description": "",
            "summary": "",
            "rpc_origins": [],
            "bot_public": True,
            "bot_require_code_grant": False,
            "verify_key": "0" * 64,
            "flags": self.flags,
            "owner": wire.user(self._world.users[self._world.guild.owner_id]),
            "team": None,
            "bot": wire.user(bot),
            "interactions_endpoint_url": None,
            "approximate_guild_count": 1,
        }

    def gateway(self, call: Call) -> Json:
        allowance = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
        return {"url": self._gateway_url(), "shards": 1, "session_start_limit": allowance}

    def user(self, call: Call) -> Json:
        person = self._world.users.get(call.id("user"))
        if person is None:
            raise unknown_user()
        return wire.user(person)

    def open_dm(self, call: Call) -> Json:
        person = self._world.users.get(int(call.body.get("recipient_id") or 0))
        if person is None or person.bot:
            raise invalid("recipient_id", "INVALID_RECIPIENT", "Cannot send messages to this user")
        return wire.channel(self._world, self._world.dm(person))

    def commands(self, call: Call) -> list[Json]:
        return self._world.commands[self._scope(call)]

    def set_commands(self, call: Call) -> list[Json]:
        """Replace all commands; those that keep name and type keep their ids."""
        wanted = call.payload
        if not isinstance(wanted, list):
            raise invalid("", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
        limits.check_commands(wanted)
        scope = self._scope(call)
        known = {(command["name"], command["type"]): command["id"] for command in self._world.commands[scope]}
        self._world.commands[scope] = [self._registered(command, known, scope) for command in wanted]
        self._world.emit("commands")
        return self._world.commands[scope]

    def _registered(self, command: Json, known: dict[Any, str], scope: int | None) -> Json:
        kind = command.get("type") or 1
        needed = command.get("default_member_permissions")
        return (
            {"dm_permission": True, "nsfw": False, "options": [], "contexts": None, "integration_types": [0]}
            | command
            | {
                "id": known.get((command["name"], kind)) or str(self._world.snowflake()),
                "application_id": str(self._world.bot.id),
                "version": str(self._world.snowflake()),
                "type": kind,
                "description": command.get("description") or "",
                "default_member_permissions": None if needed is None else str(needed),
            }
            | ({"guild_id": str(scope)} if scope else {})
        )

    def _scope(self, call: Call) -> int | None:
        if call.id("application") != self._world.bot.id:
            raise missing_access()
        if "guild" not in call.params:
            return None
        self._home(call)
        return call.id("guild")

    def _home(self, call: Call) -> None:
        if call.id("guild") != self._world.guild.id:
            raise unknown_guild()

    def guild(self, call: Call) -> Json:
        self._home(call)
        return wire.guild(self._world)

    def channels(self, call: Call) -> list[Json]:
        self._home(call)
        told: list[Json] = wire.guild_create(self._world)["channels"]
        return told

    def members(self, call: Call) -> list[Json]:
        self._home(call)
        return [wire.member(self._world, person) for person in self._world.users.values()][: int(call.query.get("limit", 1))]

    def member(self, call: Call) -> Json:
        self._home(call)
        person = self._world.users.get(call.id("user"))
        if person is None:
            raise unknown_member()
        return wire.member(self._world, person)
