"""With a folder, what was said outlives the process."""

import json
from pathlib import Path

import pytest

from loopback import Loopback
from loopback.values import Interaction
from loopback.world import World


async def test_channels_users_messages_files_and_commands_are_there_again(tmp_path: Path) -> None:
    async with Loopback(folder=tmp_path) as first:
        carol = first.add_user("carol", dms_open=False)
        attic = first.add_channel("attic", nsfw=True)
        attic.deny(1 << 15)
        thread, away = first.add_thread(attic, "side"), first.add_foreign_channel("away")
        first.world.join(thread)
        carol.moderator, carol.locale = True, "fr"
        said = await first.say(carol, attic, f"hello {first.ann.mention}", files=[("a.txt", b"text")])
        await first.react(first.ann, said, "👍")
        await first.say(first.ann, first.dm(first.ann), "in private")
        first.world.commands[None] = [{"name": "dream", "type": 1}]
    async with Loopback(folder=tmp_path) as second:
        again = second.world.channels[attic.id]
        assert (again.name, again.nsfw, again.denied) == ("attic", True, 1 << 15)
        [message] = again.messages
        assert (message.id, message.content, message.author.name, message.author.dms_open) == (said.id, said.content, "carol", False)
        assert (message.author.moderator, message.author.locale) == (True, "fr")
        assert second.world.channels[thread.id].parent is again and second.world.channels[thread.id].joined_at
        assert second.world.channels[away.id].foreign
        assert message.mentions == [second.ann] and message.reactions == {"👍": [second.ann.id]}
        assert message.attachments[0].data == b"text"
        assert message.raw["attachments"][0]["url"].startswith(second.page)
        assert [message.content for message in second.dm(second.ann).messages] == ["in private"]
        assert second.world.commands[None] == [{"name": "dream", "type": 1}]
        assert second.world.snowflake() > first.world.last_snowflake


async def test_roles_rights_and_removed_channels_outlive_the_process(tmp_path: Path) -> None:
    async with Loopback(folder=tmp_path) as first:
        helpers = first.add_role("helpers", 1 << 13)
        first.ann.roles.add(helpers.id)
        first.ann.joined_at = 1e9
        first.guild.owner_id = first.ben.id
        attic = first.add_channel("attic")
        side = first.add_thread(attic, "side")
        said = await first.say(first.ann, attic, "x", files=[("a.txt", b"x")])
        use = Interaction(first.world.snowflake(), "token", 2, first.ann, side, first.clock.now(), {}, "dream")
        first.world.add_interaction(use)
        first.remove_channel(attic)
        assert not said.attachments[0].path.exists()
    async with Loopback(folder=tmp_path) as second:
        [again] = second.world.roles.values()
        assert (again.id, again.name, again.permissions) == (helpers.id, "helpers", 1 << 13)
        assert (second.ann.roles, second.ann.joined_at, second.guild.owner_id) == ({helpers.id}, 1e9, second.ben.id)
        assert second.ann.permissions & 1 << 13 and second.ben.permissions & 1 << 3
        assert [*second.world.channels] == [second.general.id] and second.world.interactions == {}
        second.remove_channel(second.general)
    async with Loopback(folder=tmp_path) as third:
        assert third.world.channels == {}


async def test_a_folder_of_an_earlier_version_is_taken_up(tmp_path: Path) -> None:
    async with Loopback(folder=tmp_path) as first:
        await first.say(first.ann, first.general, "hello")
    path = tmp_path / "world.json"
    saved = json.loads(path.read_bytes())
    del saved["owner_id"], saved["roles"], saved["users"][2:]
    for user in saved["users"]:
        del user["roles"], user["joined_at"]
    path.write_text(json.dumps(saved))
    async with Loopback(folder=tmp_path) as second:
        assert [message.content for message in second.general.messages] == ["hello"]
        assert [user.name for user in second.world.people()] == ["ann", "ben", "olga"] and second.guild.owner_id == second.olga.id


async def test_a_token_outlives_the_process(tmp_path: Path) -> None:
    async with Loopback(folder=tmp_path) as first:
        use = Interaction(first.world.snowflake(), "token", 2, first.ann, first.general, first.clock.now(), {}, "dream")
        first.world.add_interaction(use)
        use.acknowledged.set()
        use.message = await first.say(first.bot, first.general, "thinking")
        first.world.emit("interaction", use)
    async with Loopback(folder=tmp_path) as second:
        again = second.world.interactions["token"]
        assert again.acknowledged.is_set() and again.message is second.general.messages[0]
        assert again.user is second.ann


async def test_an_answer_is_on_disk_before_the_bot_hears_of_it(tmp_path: Path) -> None:
    import aiohttp

    async with Loopback(folder=tmp_path) as first:
        headers = {"Authorization": "Bot loopback"}
        address = f"{first.api}/channels/{first.general.id}/messages"
        async with aiohttp.ClientSession(headers=headers) as session, session.post(address, json={"content": "posted", "nonce": "job-1"}) as response:
            assert response.status == 200
        # Another process that starts now, as after a kill, finds the message and its nonce.
        async with Loopback(folder=tmp_path) as second:
            assert [(message.content, message.nonce) for message in second.general.messages] == [("posted", "job-1")]


async def test_deleted_messages_take_their_files_along(tmp_path: Path) -> None:
    async with Loopback(folder=tmp_path) as discord_:
        message = await discord_.say(discord_.ann, discord_.general, "x", files=[("a.txt", b"x")])
        path = message.attachments[0].path
        assert path and path.exists()
        discord_.world.delete_message(message)
        assert not path.exists()


async def test_files_that_nobody_shows_are_swept_at_the_next_start(tmp_path: Path) -> None:
    async with Loopback(folder=tmp_path) as first:
        shown = await first.say(first.ann, first.general, "x", files=[("a.txt", b"x")])
        lost = first.world.keep_file(first.general, ("b.txt", b"x"), ephemeral=True)
    async with Loopback(folder=tmp_path):
        assert shown.attachments[0].path.exists() and not lost.path.exists()


async def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "world.json").write_text('{"version": 1, "last_sn')
    async with Loopback(folder=tmp_path) as discord_:
        assert discord_.general.messages == []
    assert (tmp_path / "world.damaged.json").read_text().startswith('{"version"')
    assert "world.damaged.json" in caplog.text


async def test_a_half_understood_file_leaves_nothing_behind(tmp_path: Path) -> None:
    async with Loopback(folder=tmp_path) as first:
        first.add_user("carol")
    text = (tmp_path / "world.json").read_text()
    (tmp_path / "world.json").write_text(text.replace('"commands"', '"comands"'))
    async with Loopback(folder=tmp_path) as second:
        assert [user.name for user in second.world.people()] == ["ann", "ben", "olga"]


def test_names_of_uploads_lead_nowhere(tmp_path: Path) -> None:
    world = World(tmp_path)
    kept = world.keep_file(next(iter(world.channels.values())), ("../../etc/pass wd\n.png", b"x"))
    assert kept.path == tmp_path / "attachments" / str(kept.id)
    assert kept.filename == "etc_pass_wd_.png"


def test_ids_only_grow_even_when_the_clock_goes_back() -> None:
    world = World()
    before = [world.snowflake() for _ in range(100)]
    world.clock.advance(-3600)
    after = [world.snowflake() for _ in range(100)]
    assert sorted({*before, *after}) == before + after
