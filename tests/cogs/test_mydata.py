import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cogs import _archives as archives_module
from cogs import _cards as cards
from cogs._client import Reverie
from cogs.mydata import MyData, parcels
from engine.database import NAME
from engine.preferences import Level
from engine.rights import DAY_S, back_up
from loopback import Channel, Loopback, Message, User
from tests.cogs.browsing import archives, button, labels, listed, noisy, painted, part, pressed, similar, told, turned, unpacked, used, varied
from tests.cogs.conftest import Start, asked, choose, results, settled, states
from tests.conftest import ScriptedPainter, png

SECRET = "Grumblefisk"
ERASED = "Erased: {jobs} results, and everything else of yours."


async def exported(server: Loopback, user: User, channel: Channel | None = None, parts: int = 1) -> tuple[Any, dict[str, bytes]]:
    use = await used(server, user, channel or server.general, "mydata export")
    return unpacked(await archives(server, use, parts))


async def asked_to_erase(server: Loopback, user: User, channel: Channel | None = None) -> Message:
    """Return the question whether really everything is to be erased."""
    return await told(server, user, channel or server.general, "mydata delete")


async def erased(server: Loopback, bot: Reverie, user: User, jobs: int, channel: Channel | None = None) -> None:
    """Erase everything of somebody, and wait until it is done and told."""
    question = await asked_to_erase(server, user, channel)
    await server.press(user, question, button(cards.Act.ERASE, 0))
    await server.wait_for(lambda: not question.components)
    assert question.content == ERASED.format(jobs=jobs)
    await bot.board.settled()


def cog_of(bot: Reverie) -> Any:
    """Return the cog: discord.py imports its module anew for every bot."""
    cog = bot.get_cog(MyData.__cog_name__)
    assert cog is not None
    return cog


def indexed(bot: Reverie) -> int:
    """Return of how many pictures the memory knows what they look like."""
    return sum(map(len, bot.album._indexes.values()))


def public(server: Loopback) -> list[Message]:
    return [message for channel in server.world.channels.values() for message in channel.messages if message.visible_to is None]


def traces(folder: Path, *secrets: bytes) -> list[tuple[str, bytes]]:
    """Return which secrets stand in which files."""
    files = {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return [(name, secret) for name, content in files.items() for secret in secrets if secret.lower() in content.lower()]


def secrets_of(user: User) -> tuple[bytes, ...]:
    return SECRET.encode(), str(user.id).encode(), user.id.to_bytes(8, "big")


def words_in(database: Path) -> set[str]:
    """Return every word in the index, which stores only where one differs from the one before."""
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.known USING fts5vocab (main, job_words, row)")
        return {word for (word,) in connection.execute("SELECT term FROM temp.known")}


# Exports.


async def test_who_was_never_here_gets_an_export_that_says_so(discord_: Loopback, bot: Reverie) -> None:
    facts, files = await exported(discord_, discord_.ann)
    assert not any(facts.values()) and "jobs" in facts and not files


async def test_an_export_is_split_to_what_the_place_takes(discord_: Loopback, bot: Reverie) -> None:
    for _ in range(6):
        await painted(bot, discord_.ann, discord_.general, count=2, noise=True)
    discord_.limits.file_bytes = discord_.limits.reported_file_bytes = 20_000
    use = await used(discord_, discord_.ann, discord_.dm(discord_.ann), "mydata export")
    await discord_.wait_for(lambda: len(use.followups) >= 2)
    await asyncio.sleep(0.2)
    messages = [use.message, *use.followups]
    data = [file.data for message in messages for file in message.attachments]
    assert max(map(len, data)) <= 20_000
    facts, files = unpacked(data)
    assert files == {f"pictures/{job}/{position}.png": noisy(job, position) for job in range(1, 7) for position in range(2)}
    assert len(facts["jobs"]) == 6 and not any("That is not all" in message.content for message in messages)


async def test_a_long_export_is_gone_on_with_as_a_download(discord_: Loopback, bot: Reverie, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives_module, "MOST", 3)
    for _ in range(9):
        await painted(bot, discord_.ann, discord_.general, count=2, noise=True)
    for number in (9, 4):
        await bot.remove(await bot.history.find(number), discord_.ben.id)
    discord_.limits.file_bytes = discord_.limits.reported_file_bytes = 24_000
    use = await used(discord_, discord_.ann, discord_.general, "mydata export")
    options: dict[str, int] = {}
    came: dict[str, bytes] = {}
    for times in range(5):
        await discord_.wait_for(lambda use=use: any("That is not all" in m.content for m in [use.message, *use.followups]) or options.get("before"))
        await asyncio.sleep(0.3)
        messages = [use.message, *use.followups]
        assert len(messages) <= 3
        facts, files = unpacked([file.data for message in messages for file in message.attachments])
        if times == 0:
            # What no download brings comes first.
            assert len(facts["jobs"]) == 9 and {int(name.split("/")[1]) for name in files} == {9, 4, 8, 7, 6, 5}
        assert not came.keys() & files.keys()
        came |= files
        if "That is not all" not in messages[-1].content:
            break
        options["before"] = int(messages[-1].content.rpartition("before:")[2].rstrip("`."))
        use = await used(discord_, discord_.ann, discord_.general, "download", **options)
    assert came == {f"pictures/{job}/{position}.png": noisy(job, position) for job in range(1, 10) for position in range(2)}


def test_an_export_begins_with_what_no_download_brings() -> None:
    ends = {1: (1.0, None, 0), 2: (1.0, 5, 0), 3: (1.0, None, 1), 4: (None, None, 0), 5: (1.0, None, 0)}
    facts = {
        "jobs": [{"id": job, "seconds": end[0], "removed_by": end[1], "withheld": end[2]} for job, end in ends.items()],
        "pictures": [{"path": f"{job}.png", "job": job} for job in ends],
    }
    files = [(f"{job}.png", b"") for job in ends] + [("handed-in/1.png", b"")]
    found = [(parcel.number, [name for name, _ in parcel.files]) for parcel in parcels(facts, files)]
    assert found == [(0, ["2.png", "3.png", "4.png", "handed-in/1.png"]), (5, ["5.png"]), (1, ["1.png"])]
    assert parcels({"jobs": [], "pictures": []}, []) == [archives_module.Parcel(0, [])]


# A life, and its end.


class Town:
    """Two people who have done everything there is to do, and a third who has looked on."""

    def __init__(self, server: Loopback, bot: Reverie, folder: Path) -> None:
        self.server, self.bot, self.folder = server, bot, folder
        self.ann, self.ben, self.carla = server.ann, server.ben, server.add_user("carla")
        self.wall, self.reports = server.add_channel("gallery"), server.add_channel("reports")
        self.done = 0

    async def result(self, user: User, channel: Channel, name: str, **options: object) -> Message:
        await self.server.command(user, channel, name, options)
        return await self.new_card(channel)

    async def new_card(self, channel: Channel) -> Message:
        self.done += 1
        await settled(self.bot, *["delivered"] * self.done)
        return results(self.server, channel)[-1]

    async def shared(self, user: User, card: Message, job: int) -> Message:
        which = await pressed(self.server, user, card, button(cards.Act.SHARE, job))
        use = await self.server.press(user, which, button(cards.Act.SHARE_ONE, job))
        await self.server.wait_for(lambda: use.message)
        assert use.message is not None and not use.message.ephemeral
        return use.message

    async def star(self, user: User, message: Message) -> None:
        before = message.content
        await self.server.press(user, message, part(message, "⭐ Star")["custom_id"])
        await self.server.wait_for(lambda: message.content != before)

    async def vote(self, user: User) -> None:
        question = await told(self.server, user, self.server.general, "vote")
        assert question.content == "Which is better?"
        await self.server.press(user, question, part(question, "Picture 1")["custom_id"])
        await self.server.wait_for(lambda: question.content != "Which is better?")

    async def report(self, user: User, card: Message, reason: str) -> None:
        form = await self.server.context_menu(user, self.server.general, card, "Report")
        await self.server.wait_for(lambda: form.modal)
        before = len(self.reports.messages)
        await self.server.submit_modal(user, form, {"reason": reason})
        await self.server.wait_for(lambda: len(self.reports.messages) > before)

    async def live(self) -> None:
        server, bot, general = self.server, self.bot, self.server.general
        await choose(bot, server, gallery=str(self.wall.id), reports=str(self.reports.id), gallery_stars=1)
        for user, count in ((self.ann, 2), (self.ben, 3)):
            await choose(bot, server, "user", user, count=count)
        # 1, 2: Ann's. 3, 4: Ben's.
        self.anns = await self.result(self.ann, general, "dream", prompt=f"a {SECRET} cat", seed=1)
        self.anns_other = await self.result(self.ann, general, "dream", prompt="a dog", seed=20)
        self.bens = await self.result(self.ben, general, "dream", prompt="a house", seed=40)
        self.bens_other = await self.result(self.ben, general, "dream", prompt="a tree", seed=60, count=2)
        # 5 is Ben's variation of a picture of Ann's, 6 is Ann's of one of Ben's.
        await server.press(self.ben, self.anns_other, button(cards.Act.VARY, 2))
        self.bens_variation = await self.new_card(general)
        await server.press(self.ann, self.bens, button(cards.Act.VARY, 3, 1))
        self.anns_variation = await self.new_card(general)
        # 7 and 8 are Ann's: of a picture that she hands in, and in direct messages.
        await self.result(self.ann, general, "variations", image=png((11, 22, 33), 16), prompt=f"more {SECRET}", count=1)
        await self.result(self.ann, server.dm(self.ann), "dream", prompt=f"a secret {SECRET}", count=1)
        use = await server.press(self.ben, self.anns, button(cards.Act.ENLARGE, 1, 1))
        await server.wait_for(lambda: use.message)
        self.enlarged = use.message
        self.shares = [await self.shared(user, card, job) for user, card, job in self.cards()]
        for user, share in ((self.ben, 0), (self.ben, 1), (self.ann, 2), (self.ann, 3), (self.carla, 3)):
            await self.star(user, self.shares[share])
        await bot.board.settled()
        assert len(self.wall.messages) == 4
        await self.vote(self.ann)
        await self.vote(self.ben)
        await self.report(self.ben, self.anns, "ugly")
        await self.report(self.ann, self.bens, "uglier")
        # Drafts: a page, and a picture with a part to repaint.
        await told(server, self.ann, general, "history", words=SECRET)
        await told(server, self.ann, general, "inpaint", image=png((44, 55, 66), 16), prompt=f"a {SECRET} hat", region="left")

    def cards(self) -> list[tuple[User, Message, int]]:
        return [(self.ann, self.anns, 1), (self.ann, self.anns_other, 2), (self.ben, self.bens, 3), (self.ben, self.bens_other, 4)]


@pytest.fixture
async def town(discord_: Loopback, bot: Reverie, tmp_path: Path) -> Town:
    town = Town(discord_, bot, tmp_path / "data")
    await town.live()
    return town


async def test_an_export_holds_everything_of_a_person_and_nothing_that_opens_discord(discord_: Loopback, bot: Reverie, town: Town) -> None:
    facts, files = await exported(discord_, discord_.ann)
    assert [job["id"] for job in facts["jobs"]] == [1, 2, 6, 7, 8]
    assert [job["prompt"] for job in facts["jobs"]] == [f"a {SECRET} cat", "a dog", "a house", f"more {SECRET}", f"a secret {SECRET}"]
    assert facts["settings"] == {"count": 2}
    counts = {"shares": 2, "stars": 2, "votes": 1, "reports": 1, "drafts": 2, "bans": 0, "pictures": 9}
    assert {name: len(facts[name]) for name in counts} == counts
    assert {draft["user_id"] for draft in facts["drafts"]} == {discord_.ann.id}
    for number in (1, 2, 6, 7, 8):
        painting = await bot.history.painting_of(await bot.history.find(number))
        for position, picture in enumerate(painting.pictures):
            assert files[f"pictures/{number}/{position}.png"] == picture.png
    handed_in = [data for name, data in files.items() if name.startswith("handed-in/")]
    assert len(files) == 9 + len(handed_in) and len(set(handed_in)) == len(handed_in)
    jobs = [await bot.history.find(number) for number in (6, 7)]
    assert {jobs[0].request.image, jobs[1].request.image} <= set(handed_in)
    text = json.dumps(facts)
    tokens = {use.token for use in discord_.world.interactions.values()}
    assert not any(token in text for token in tokens) and "token" not in text
    # Ben's are not in it, but for what Ann did with them.
    assert not any(f"pictures/{number}/0.png" in files for number in (3, 4, 5))


async def test_an_export_holds_no_token_of_what_is_on_its_way(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    use = await asked(discord_, painter)
    facts, _ = await exported(discord_, discord_.ann)
    assert [job["state"] for job in facts["jobs"]] == ["painting"] and use.token not in json.dumps(facts)
    painter.hold.set()
    await settled(bot, "delivered")


async def test_who_is_erased_leaves_nothing_behind(discord_: Loopback, bot: Reverie, town: Town, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    await asyncio.to_thread(back_up, town.folder, backup)
    assert traces(backup, *secrets_of(town.ann)) and traces(town.folder, *secrets_of(town.ann))
    assert set(similar(await told(discord_, town.ben, discord_.general, "similar", number=3))) >= {1, 2, 6}
    bens_before, bens_files = await exported(discord_, town.ben)
    await erased(discord_, bot, town.ann, jobs=5)

    # Nothing in the database, its indexes or its log, and nothing on the disk.
    assert traces(town.folder, *secrets_of(town.ann)) == []
    assert f"u{town.ann.id}" not in words_in(town.folder / NAME) and SECRET.lower() not in words_in(town.folder / NAME)
    assert f"u{town.ben.id}" in words_in(town.folder / NAME)
    assert sorted(path.name for path in (town.folder / "pictures").iterdir()) == ["3", "4", "5"]
    facts, files = await exported(discord_, town.ann)
    assert not any(facts.values()) and not files

    # Nothing in the channels, but for what the moderators were told.
    left = [message for message in public(discord_) if message.channel is not town.reports]
    assert not any(word in json.dumps(message.raw) for message in left for word in (SECRET, str(town.ann.id)))
    assert not any(message.deleted for message in (town.bens, town.bens_other, town.bens_variation, *town.shares[2:]))
    assert all(message.deleted for message in (town.anns, town.anns_other, town.anns_variation, town.enlarged, *town.shares[:2]))
    assert results(discord_, discord_.dm(town.ann)) == []
    assert await bot.gallery.doomed() == []

    # Nothing is found of her, by anybody.
    assert (await told(discord_, town.ann, discord_.general, "history")).content == "Nothing found."
    for user in (town.ann, town.ben):
        page = await told(discord_, user, discord_.general, "history", whose="server")
        assert listed(page) == [5, 4, 3]
    assert set(similar(await told(discord_, town.ben, discord_.general, "similar", number=3))) == {4, 5} and indexed(bot) == 7
    assert (await told(discord_, town.ben, discord_.general, "show", number=1)).content.startswith("I don't remember this")

    # Ben has what he had, but for what hung on hers.
    facts, files = await exported(discord_, town.ben)
    assert [job["id"] for job in facts["jobs"]] == [3, 4, 5] and facts["settings"] == bens_before["settings"] == {"count": 3}
    same = ("id", "prompt", "seed", "count", "result_id", "created_at")
    assert [[job[key] for key in same] for job in facts["jobs"]] == [[job[key] for key in same] for job in bens_before["jobs"]]
    pictures = {name: data for name, data in bens_files.items() if name.startswith("pictures/")}
    assert {name: data for name, data in files.items() if name.startswith("pictures/")} == pictures and len(pictures) == 7
    assert [facts["jobs"][2][key] for key in ("parent", "source", "image")] == [None] * 3
    assert len(facts["shares"]) == 2 and not facts["stars"] and not facts["votes"] and len(bens_before["stars"]) == 2

    # Her stars count no longer: of two entries one has lost its only star.
    [entry] = town.wall.messages
    assert entry.content == f"⭐ **1** · #4 by <@{town.ben.id}>\na tree"

    # The next backup has nothing either.
    await bot.history.database.change("DELETE FROM draft")  # pages that Ann has looked at since
    await asyncio.to_thread(back_up, town.folder, backup)
    assert traces(backup, *secrets_of(town.ann)) == []
    assert sorted(path.name for path in (backup / "pictures").iterdir()) == ["3", "4", "5"]


async def test_who_comes_back_starts_anew(discord_: Loopback, bot: Reverie, town: Town) -> None:
    await erased(discord_, bot, town.ann, jobs=5)
    assert bot.preferences.get(Level.USER, town.ann.id, "count") is None
    before = len(results(discord_))
    await discord_.command(town.ann, discord_.general, "dream", {"prompt": "a dog"})
    await discord_.wait_for(lambda: len(results(discord_)) > before)
    await settled(bot, *["delivered"] * 4)
    # Numbers are not used again, or old buttons would show new pictures.
    assert listed(await told(discord_, town.ann, discord_.general, "history")) == [9]
    assert len((await bot.history.painting_of(await bot.history.find(9))).pictures) == 4


async def test_what_was_erased_stays_so_after_a_restart(discord_: Loopback, start: Start, tmp_path: Path) -> None:
    async with start() as bot:
        mine = await painted(bot, discord_.ann, discord_.general, f"a {SECRET}")
        other = await painted(bot, discord_.ben, discord_.general)
        question = await asked_to_erase(discord_, discord_.ann)
    async with start() as bot:
        # The question was asked before the restart.
        await discord_.press(discord_.ann, question, button(cards.Act.ERASE, 0))
        await discord_.wait_for(lambda: not question.components)
        assert question.content == ERASED.format(jobs=1)
    assert traces(tmp_path / "data", *secrets_of(discord_.ann)) == []
    async with start() as bot:
        assert await bot.history.find(mine.id) is None
        assert listed(await told(discord_, discord_.ann, discord_.general, "history", whose="server")) == [other.id]


# While it happens.


async def test_what_waits_or_is_being_painted_is_called_off_first(discord_: Loopback, bot: Reverie, painter: ScriptedPainter, tmp_path: Path) -> None:
    await asked(discord_, painter, prompt=f"a {SECRET}")
    for user, prompt in ((discord_.ann, f"another {SECRET}"), (discord_.ben, "a tree")):
        use = await discord_.command(user, discord_.general, "dream", {"prompt": prompt, "count": 1})
        await discord_.wait_for(lambda use=use: use.message)
    await erased(discord_, bot, discord_.ann, jobs=2)
    assert await states(bot) == ["waiting"] or await states(bot) == ["painting"]
    painter.hold.set()
    await settled(bot, "delivered")
    await asyncio.sleep(0.3)
    assert not any(SECRET in message.content for message in public(discord_))
    assert [request.prompt for request in painter.painted] == ["a tree"]
    assert [path.name for path in (tmp_path / "data" / "pictures").iterdir()] == ["3"]
    assert traces(tmp_path / "data", *secrets_of(discord_.ann)) == []


async def test_who_tells_late_that_a_job_was_called_off_does_not_bring_its_prompt_back(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter
) -> None:
    use = await asked(discord_, painter, prompt=f"a {SECRET}")
    # Discord lets the edit of the progress message wait.
    discord_.fail_next(1, status=429, path=rf"/messages/{use.message.id}", retry_after=0.7)
    await erased(discord_, bot, discord_.ann, jobs=1)
    painter.hold.set()
    await asyncio.sleep(1)
    assert not any(SECRET in message.content for message in public(discord_)) and use.message.deleted


async def test_what_is_being_delivered_is_waited_for(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, judging, go_on = bot.house.judge, asyncio.Event(), asyncio.Event()

    async def slow(*values: Any) -> Any:
        judging.set()
        await go_on.wait()
        return await judge(*values)

    monkeypatch.setattr(bot.house, "judge", slow)
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": f"a {SECRET}"})
    await asyncio.wait_for(judging.wait(), 5)
    question = await asked_to_erase(discord_, discord_.ann)
    await discord_.press(discord_.ann, question, button(cards.Act.ERASE, 0))
    await asyncio.sleep(0.3)
    assert question.components and await states(bot) == ["painted"]
    go_on.set()
    await discord_.wait_for(lambda: not question.components)
    await bot.board.settled()
    assert question.content == ERASED.format(jobs=1) and results(discord_) == []
    assert (await told(discord_, discord_.ben, discord_.general, "similar", image=png((1, 2, 3)))).content == "Nothing found."


async def test_two_presses_at_once_erase_once(discord_: Loopback, bot: Reverie) -> None:
    for _ in range(3):
        await painted(bot, discord_.ann, discord_.general, f"a {SECRET}")
    await painted(bot, discord_.ben, discord_.general, "a cat")
    question = await asked_to_erase(discord_, discord_.ann)
    uses = [await discord_.press(discord_.ann, question, button(cards.Act.ERASE, 0)) for _ in range(3)]
    await discord_.wait_for(lambda: all(use.acknowledged.is_set() for use in uses) and not question.components)
    await asyncio.sleep(0.3)
    assert question.content == ERASED.format(jobs=3) and not any(use.followups for use in uses)
    assert listed(await told(discord_, discord_.ben, discord_.general, "history", words="cat")) == [4]


async def test_of_those_who_erase_one_comes_after_the_other(discord_: Loopback, bot: Reverie, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is erased twice at once is taken out of the index of words twice, which breaks it."""
    await choose(bot, discord_, retention_days=7)
    for user in (discord_.ann, discord_.ben):
        await painted(bot, user, discord_.general)
    await bot.history.database.change("UPDATE job SET finished_at = 5.0")
    erase, busy = bot.rights._erase_jobs, 0

    async def alone(*values: Any, **options: Any) -> Any:
        nonlocal busy
        busy += 1
        assert busy == 1
        await asyncio.sleep(0.1)
        try:
            return await erase(*values, **options)
        finally:
            busy -= 1

    monkeypatch.setattr(bot.rights, "_erase_jobs", alone)
    cog = cog_of(bot)
    found = await asyncio.gather(cog.erase_user(discord_.ann.id), cog.expire_once(), cog.erase_user(discord_.ben.id))
    assert found[0].jobs == 1 and await states(bot) == []


async def test_the_question_can_be_left_unanswered(discord_: Loopback, bot: Reverie) -> None:
    await painted(bot, discord_.ann, discord_.general)
    question = await asked_to_erase(discord_, discord_.ann)
    assert "cannot be undone" in question.content and "`/mydata export`" in question.content and labels(question) == ["Erase everything"]
    assert listed(await told(discord_, discord_.ann, discord_.general, "history")) == [1]


async def test_whoever_presses_erases_their_own_and_nobody_elses(discord_: Loopback, bot: Reverie) -> None:
    for user in (discord_.ann, discord_.ben):
        await painted(bot, user, discord_.general)
    question = await asked_to_erase(discord_, discord_.ann)
    # Nobody else sees the question; whoever forges it answers for themselves.
    forged = Message(question.id, discord_.general, discord_.bot, components=question.components, render=question.render)
    await discord_.press(discord_.ben, forged, button(cards.Act.ERASE, 0))
    await discord_.wait_for(lambda: forged.content)
    await bot.board.settled()
    assert await bot.history.find(2) is None and await bot.history.find(1) is not None


@pytest.mark.parametrize("place", ["general", "dm", "away", "group"])
async def test_who_has_nothing_is_erased_too_wherever_they_ask(discord_: Loopback, bot: Reverie, place: str) -> None:
    channel = {"general": discord_.general, "dm": discord_.dm(discord_.ann)}.get(place) or discord_.add_foreign_channel(place, place == "away")
    await painted(bot, discord_.ben, discord_.general)
    await erased(discord_, bot, discord_.ann, jobs=0, channel=channel)
    assert await bot.history.find(1) is not None
    facts, files = await exported(discord_, discord_.ann, channel)
    assert not any(facts.values()) and not files


async def test_a_ban_holds_when_the_banned_are_forgotten(discord_: Loopback, bot: Reverie, tmp_path: Path) -> None:
    await told(discord_, discord_.olga, discord_.general, "moderate ban", user=discord_.ann, reason="spam")
    await erased(discord_, bot, discord_.ann, jobs=0)
    assert traces(tmp_path / "data", *secrets_of(discord_.ann)) == []
    use = await used(discord_, discord_.ann, discord_.general, "dream", prompt="a cat")
    assert "banned" in use.message.content


async def test_a_page_and_the_buttons_of_what_was_erased_say_that_it_is_gone(discord_: Loopback, bot: Reverie) -> None:
    for _ in range(6):
        await painted(bot, discord_.ann, discord_.general)
    page = await told(discord_, discord_.ben, discord_.general, "history", whose="server")
    child = await varied(bot, discord_.ben, discord_.general, await bot.history.find(2))
    await erased(discord_, bot, discord_.ann, jobs=6)
    gone = await pressed(discord_, discord_.ben, page, part(page, "#4")["custom_id"])
    assert gone.content == "I don't remember this any longer. Ask for it anew."
    await turned(discord_, discord_.ben, page, "Older")
    assert page.content == "Nothing found."
    shown = await told(discord_, discord_.ben, discord_.general, "show", number=child.id)
    info = await pressed(discord_, discord_.ben, shown, button(cards.Act.INFO, child.id))
    family = await pressed(discord_, discord_.ben, info, button(cards.Act.FAMILY, child.id))
    assert family.embeds[0]["description"].startswith(f"**[#{child.id}]") and "\n" not in family.embeds[0]["description"]


# Retention.


async def aged(bot: Reverie, days: float, *numbers: int) -> None:
    """Let results have been finished so many days ago."""
    for number in numbers:
        await bot.history.database.change("UPDATE job SET finished_at = finished_at - ? WHERE id = ?", days * DAY_S, number)


async def test_what_a_server_does_not_want_to_be_kept_is_forgotten(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter, tmp_path: Path
) -> None:
    wall = discord_.add_channel("gallery")
    await choose(bot, discord_, retention_days=7, gallery=str(wall.id), gallery_stars=0)
    for prompt in ("a cat", "a dog", "a tree"):
        before = len(results(discord_))
        await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": prompt, "count": 1})
        await discord_.wait_for(lambda before=before: len(results(discord_)) > before)
    await settled(bot, *["delivered"] * 3)
    old, shared, _ = results(discord_)
    await discord_.press(discord_.ann, shared, button(cards.Act.SHARE, 2))
    await discord_.wait_for(lambda: wall.messages)
    elsewhere = await painted(bot, discord_.ann, discord_.general, guild_id=77)
    direct = await painted(bot, discord_.ann, discord_.dm(discord_.ann))
    assert similar(await told(discord_, discord_.ben, discord_.general, "similar", number=3)) != [2]
    assert indexed(bot) == 5
    await asked(discord_, painter)
    await aged(bot, 7.1, 1, 2, elsewhere.id, direct.id, 6)
    await aged(bot, 6.9, 3)
    await cog_of(bot).expire_once()
    assert [row["id"] for row in await bot.history._rows("SELECT id FROM job ORDER BY id")] == [2, 3, 4, 5, 6]
    assert not (tmp_path / "data" / "pictures" / "1").exists()
    assert indexed(bot) == 4
    # Messages stay; what they belong to is forgotten.
    await bot.board.settled()
    assert not old.deleted and len(wall.messages) == 1
    gone = await pressed(discord_, discord_.ann, old, button(cards.Act.INFO, 1))
    assert gone.content.startswith("I don't remember this")
    assert similar(await told(discord_, discord_.ben, discord_.general, "similar", number=3)) == [2]
    assert listed(await told(discord_, discord_.ben, discord_.general, "history", whose="server")) == [3, 2]
    painter.hold.set()
    await settled(bot, *["delivered"] * 5)


async def test_old_results_are_forgotten_by_themselves(discord_: Loopback, start: Start) -> None:
    async with start() as bot:
        await painted(bot, discord_.ann, discord_.general)
        await choose(bot, discord_, retention_days=7)
        await aged(bot, 8, 1)
    async with start() as bot:
        for _ in range(100):
            if not await states(bot):
                break
            await asyncio.sleep(0.05)
        assert await states(bot) == []
        task = cog_of(bot)._expiring
        assert not task.done()
    assert task.cancelled()


async def test_a_new_session_does_not_begin_to_forget_a_second_time(discord_: Loopback, bot: Reverie) -> None:
    await discord_.wait_for(lambda: cog_of(bot)._expiring)
    task = cog_of(bot)._expiring
    bot.dispatch("ready")
    await asyncio.sleep(0.05)
    assert cog_of(bot)._expiring is task and [one.get_name() for one in asyncio.all_tasks()].count("retention") == 1


async def test_one_servers_trouble_is_not_anothers(discord_: Loopback, bot: Reverie, monkeypatch: pytest.MonkeyPatch) -> None:
    for guild_id in (77, discord_.guild.id):
        await bot.preferences.choose(Level.SERVER, guild_id, "retention_days", 7)
    await painted(bot, discord_.ann, discord_.general)
    await aged(bot, 8, 1)
    expire = bot.rights.expire

    async def troubled(guild_id: int, days: int) -> Any:
        if guild_id == 77:
            raise OSError("the disk is full")
        return await expire(guild_id, days)

    monkeypatch.setattr(bot.rights, "expire", troubled)
    await cog_of(bot).expire_once()
    assert await states(bot) == []


async def test_where_nothing_is_said_everything_is_kept(discord_: Loopback, bot: Reverie) -> None:
    await painted(bot, discord_.ann, discord_.general)
    await aged(bot, 4000, 1)
    await cog_of(bot).expire_once()
    assert await states(bot) == ["delivered"]
