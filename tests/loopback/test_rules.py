"""What Discord refuses is refused here too, with the same code: checked by raw HTTP, so that no library corrects the request first."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from loopback import Interaction, Loopback
from loopback.values import ACK_LIMIT_S

Ask = Callable[..., Awaitable[tuple[int, Any]]]
BUTTON = {"type": 2, "style": 1, "label": "Go", "custom_id": "go"}


@pytest.fixture
async def ask(discord_: Loopback) -> AsyncIterator[Ask]:
    """Send one request as the bot and return status and JSON."""
    async with aiohttp.ClientSession(headers={"Authorization": "Bot loopback"}) as session:

        async def send(method: str, path: str, body: Any = None, files: dict[str, bytes] | None = None) -> tuple[int, Any]:
            data = None
            if files is not None:
                data = aiohttp.FormData(quote_fields=False)
                data.add_field("payload_json", json.dumps(body))
                for index, (name, content) in enumerate(files.items()):
                    data.add_field(f"files[{index}]", content, filename=name)
            async with session.request(method, discord_.api + path, json=None if data else body, data=data) as response:
                assert response.status == 204 or response.headers["Content-Type"] == "application/json"
                return response.status, await response.json() if response.status != 204 else None

        yield send


def rows(*buttons: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": 1, "components": list(buttons)}]


BAD_MESSAGES = {
    "nothing at all": ({}, 50006),
    "2001 characters": ({"content": "x" * 2001}, 50035),
    "eleven embeds": ({"embeds": [{"title": "x"}] * 11}, 50035),
    "a long title": ({"embeds": [{"title": "x" * 257}]}, 50035),
    "embeds of 6001 characters": ({"embeds": [{"description": "x" * 4000}, {"description": "x" * 2001}]}, 50035),
    "a field without a value": ({"embeds": [{"fields": [{"name": "seed", "value": ""}]}]}, 50035),
    "six rows": ({"components": [rows(BUTTON | {"custom_id": str(n)})[0] for n in range(6)]}, 50035),
    "six buttons in a row": ({"components": rows(*(BUTTON | {"custom_id": str(n)} for n in range(6)))}, 50035),
    "an empty row": ({"components": rows()}, 50035),
    "a button outside a row": ({"components": [BUTTON]}, 50035),
    "the same id twice": ({"components": rows(BUTTON, BUTTON)}, 50035),
    "an id of 101 characters": ({"components": rows(BUTTON | {"custom_id": "x" * 101})}, 50035),
    "a label of 81 characters": ({"components": rows(BUTTON | {"label": "x" * 81})}, 50035),
    "a button without a face": ({"components": rows({"type": 2, "style": 1, "custom_id": "go"})}, 50035),
    "a link without an address": ({"components": rows({"type": 2, "style": 5, "label": "Go"})}, 50035),
    "26 choices": (
        {"components": rows({"type": 3, "custom_id": "s", "options": [{"label": str(n), "value": str(n)} for n in range(26)]})},
        50035,
    ),
    "a file that was not sent": ({"content": "x", "attachments": [{"id": 0, "filename": "a.png"}]}, 50035),
    "old fields with components V2": ({"content": "x", "flags": 1 << 15, "components": [{"type": 10, "content": "y"}]}, 50035),
    "41 components": ({"flags": 1 << 15, "components": [{"type": 10, "content": "y"}] * 41}, 50035),
    "a reply to nothing": ({"content": "x", "message_reference": {"message_id": "1"}}, 50035),
}


@pytest.mark.parametrize("what", BAD_MESSAGES)
async def test_a_message_is_refused_for(what: str, discord_: Loopback, ask: Ask) -> None:
    body, code = BAD_MESSAGES[what]
    status, answer = await ask("POST", f"/channels/{discord_.general.id}/messages", body)
    assert (status, answer["code"]) == (400, code)
    assert discord_.general.messages == []


async def test_eleven_files_are_too_many_and_ten_are_not(discord_: Loopback, ask: Ask) -> None:
    path = f"/channels/{discord_.general.id}/messages"
    files = {f"{number}.txt": b"x" for number in range(11)}
    assert (await ask("POST", path, {"content": "x"}, files))[1]["code"] == 50035
    files.popitem()
    status, sent = await ask("POST", path, {"content": "x"}, files)
    assert status == 200 and len(sent["attachments"]) == 10
    more = {"attachments": [{"id": one["id"]} for one in sent["attachments"]]}
    assert (await ask("PATCH", f"{path}/{sent['id']}", more, {"new.txt": b"x"}))[1]["code"] == 50035


async def test_a_file_and_a_request_have_their_limits(discord_: Loopback, ask: Ask) -> None:
    discord_.limits.file_bytes, discord_.limits.request_bytes = 1000, 2500
    path = f"/channels/{discord_.general.id}/messages"
    assert (await ask("POST", path, {}, {"a": bytes(1000)}))[0] == 200
    for files in ({"a": bytes(1001)}, {"a": bytes(900), "b": bytes(900), "c": bytes(900)}):
        status, answer = await ask("POST", path, {}, files)
        assert (status, answer["code"]) == (413, 40005)


@pytest.mark.parametrize(
    "body",
    [
        [],
        "text",
        {"content": 5},
        {"embeds": 5},
        {"components": [5]},
        {"components": {"a": 1}},
        {"content": "x", "attachments": [{}]},
        {"message_reference": "x"},
    ],
)
async def test_a_body_of_a_wrong_shape_is_an_error_of_the_bot(body: Any, discord_: Loopback, ask: Ask) -> None:
    status, answer = await ask("POST", f"/channels/{discord_.general.id}/messages", body)
    assert (status, answer["code"]) == (400, 50035)


async def test_what_is_not_here_is_unknown(discord_: Loopback, ask: Ask) -> None:
    general = discord_.general.id
    for method, path, expected in (
        ("GET", "/channels/1", (404, 10003)),
        ("GET", f"/channels/{general}/messages/1", (404, 10008)),
        ("GET", "/users/1", (404, 10013)),
        ("GET", "/guilds/1", (404, 10004)),
        ("GET", f"/channels/{'9' * 30}", (400, 50035)),
        ("POST", "/interactions/1/none/callback", (404, 10062)),
        ("PATCH", f"/webhooks/{discord_.bot.id}/none/messages/@original", (401, 50027)),
        ("GET", "/nowhere", (404, 0)),
    ):
        status, answer = await ask(method, path, {"type": 5} if method != "GET" else None)
        assert (status, answer["code"]) == expected, path


async def test_a_stranger_is_refused(discord_: Loopback) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{discord_.api}/users/@me") as response:
        assert response.status == 401


# Interactions.


@pytest.fixture
async def use(discord_: Loopback, ask: Ask) -> Interaction:
    """Somebody has used a command."""
    await ask("PUT", f"/applications/{discord_.bot.id}/commands", [{"name": "dream", "description": "Draw", "type": 1}])
    async with aiohttp.ClientSession() as session, session.ws_connect(discord_.gateway) as socket:
        await socket.send_json({"op": 2, "d": {"token": "loopback", "intents": 0}})
        return await discord_.command(discord_.ann, discord_.general, "dream")


def callback(use: Interaction) -> str:
    return f"/interactions/{use.id}/{use.token}/callback?with_response=1"


def webhook(discord_: Loopback, use: Interaction) -> str:
    return f"/webhooks/{discord_.bot.id}/{use.token}"


async def test_an_interaction_is_answered_once(discord_: Loopback, ask: Ask, use: Interaction) -> None:
    status, answer = await ask("POST", callback(use), {"type": 4, "data": {"content": "hello"}})
    assert status == 200 and answer["resource"]["message"]["content"] == "hello"
    assert answer["interaction"]["response_message_id"] == str(use.message.id)
    status, answer = await ask("POST", callback(use), {"type": 4, "data": {"content": "hello"}})
    assert (status, answer["code"]) == (400, 40060)


async def test_an_answer_after_three_seconds_is_too_late(discord_: Loopback, ask: Ask, use: Interaction) -> None:
    discord_.clock.advance(ACK_LIMIT_S + 0.1)
    status, answer = await ask("POST", callback(use), {"type": 5})
    assert (status, answer["code"]) == (404, 10062)


async def test_only_a_button_can_update_its_message(discord_: Loopback, ask: Ask, use: Interaction) -> None:
    for kind in (6, 7, 8, 99):
        assert (await ask("POST", callback(use), {"type": kind, "data": {}}))[1]["code"] == 50035
    assert not use.acknowledged.is_set()


async def test_a_webhook_opens_with_the_first_answer(discord_: Loopback, ask: Ask, use: Interaction) -> None:
    assert (await ask("POST", webhook(discord_, use), {"content": "early"}))[1]["code"] == 10015
    await ask("POST", callback(use), {"type": 5, "data": {"flags": 64}})
    status, answer = await ask("POST", webhook(discord_, use), {"content": "first"})
    assert status == 200 and answer["id"] == str(use.message.id), "the first message after a deferral is the deferred one"
    assert use.message.ephemeral and use.message.content == "first"
    status, answer = await ask("POST", webhook(discord_, use), {"content": "second"})
    assert answer["id"] == str(use.followups[0].id) != str(use.message.id)
    original = f"{webhook(discord_, use)}/messages/@original"
    assert (await ask("DELETE", original))[0] == 204
    assert (await ask("PATCH", original, {"content": "gone"}))[1]["code"] == 10008
    use.expire()
    assert await ask("POST", webhook(discord_, use), {"content": "late"}) == (401, {"message": "Invalid Webhook Token", "code": 50027})


@pytest.mark.parametrize(
    "modal",
    [
        {"title": "x" * 46, "custom_id": "m", "components": [{"type": 10, "content": "x"}]},
        {"title": "x", "custom_id": "m", "components": []},
        {"title": "x", "components": [{"type": 10, "content": "x"}]},
        {"title": "x", "custom_id": "m", "components": [{"type": 18, "label": "x" * 46, "component": {"type": 4, "style": 1, "custom_id": "a"}}]},
    ],
)
async def test_a_modal_that_cannot_be_shown_is_refused(modal: Any, ask: Ask, use: Interaction) -> None:
    status, answer = await ask("POST", callback(use), {"type": 9, "data": modal})
    assert (status, answer["code"]) == (400, 50035) and use.modal is None


@pytest.mark.parametrize(
    "command",
    [
        {"name": "Dream", "description": "Draw"},
        {"name": "dream", "description": ""},
        {"name": "dream", "description": "x" * 101},
        {"name": "dream", "description": "Draw", "options": [{"type": 3, "name": f"o{n}", "description": "x"} for n in range(26)]},
        {"name": "dream", "description": "Draw", "options": [{"type": 3, "name": "a", "description": "x" * 101}]},
        {
            "name": "dream",
            "description": "Draw",
            "options": [{"type": 3, "name": "a", "description": "x"}, {"type": 3, "name": "b", "description": "x", "required": True}],
        },
    ],
)
async def test_a_command_that_cannot_be_registered_is_refused(command: Any, discord_: Loopback, ask: Ask) -> None:
    status, answer = await ask("PUT", f"/applications/{discord_.bot.id}/commands", [command])
    assert (status, answer["code"]) == (400, 50035) and discord_.world.commands[None] == []


# The contract.


async def test_a_body_that_the_contract_does_not_allow_is_found(discord_: Loopback, ask: Ask) -> None:
    if discord_.contract is None:
        pytest.skip("Discord's OpenAPI document is not here: set DISCORD_OPENAPI to its path")
    path = f"/channels/{discord_.general.id}/messages"
    await ask("POST", path, {"content": "fine", "components": rows(BUTTON), "message_reference": None, "nonce": 5})
    assert discord_.violations == []
    await ask("POST", path, {"content": "bad", "components": rows(BUTTON | {"style": 77})})
    assert len(discord_.violations) == 1 and "style" in discord_.violations[0]
    await ask("POST", path, {"content": ["no text"]})
    await ask("POST", "/nowhere", {})
    await ask("POST", "/gateway/bot", {})
    assert len(discord_.violations) == 4


async def test_uploads_are_held_to_the_contract_too(discord_: Loopback, ask: Ask) -> None:
    if discord_.contract is None:
        pytest.skip("Discord's OpenAPI document is not here: set DISCORD_OPENAPI to its path")
    path = f"/channels/{discord_.general.id}/messages"
    await ask("POST", path, {"attachments": [{"id": 0, "filename": "a.txt", "description": "x"}]}, {"a.txt": b"x"})
    assert discord_.violations == []
    await ask("POST", path, {"attachments": [{"id": 0, "description": "x" * 1025}]}, {"a.txt": b"x"})
    assert len(discord_.violations) == 1


async def test_requests_are_logged(discord_: Loopback, ask: Ask) -> None:
    await ask("POST", f"/channels/{discord_.general.id}/messages", {"content": "x"}, {"a.txt": b"four"})
    [request] = discord_.requests
    assert (request.method, request.payload, request.files, request.status) == ("POST", {"content": "x"}, [("a.txt", 4)], 200)


async def test_an_edit_that_is_refused_changes_nothing(discord_: Loopback, ask: Ask) -> None:
    path = f"/channels/{discord_.general.id}/messages"
    _, sent = await ask("POST", path, {"content": "before"}, {"a.txt": b"x"})
    status, _ = await ask("PATCH", f"{path}/{sent['id']}", {"content": "after", "attachments": [{"id": 3}]})
    [message] = discord_.general.messages
    assert (status, message.content, message.edited_at, len(message.attachments)) == (400, "before", None, 1)


async def test_a_port_that_is_taken_is_told(discord_: Loopback) -> None:
    with pytest.raises(OSError, match="address already in use"):
        await Loopback(discord_.port).start()
