"""The gallery against a model of it: what people do at random, and what a naive look at Discord says should be shown then."""

import asyncio
import itertools
import logging
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cogs import _board as board
from cogs import _cards as cards
from cogs._client import ANSWERING, Endpoint, Reverie
from engine.history import History
from engine.preferences import Level
from engine.queue import Limits, Queue
from engine.worker import Worker
from loopback import Channel, Interaction, Loopback, Message, User, permissions
from tests.cogs.boarding import ENTRY, STAR, dreamt, entries, named, pressed
from tests.cogs.conftest import answered
from tests.cogs.fuzzing import Faults
from tests.conftest import ScriptedPainter

EVENTS = int(os.environ.get("EVENTS", 150))
"""`EVENTS=10000 pytest tests/cogs/test_board.py` is the long run."""
BATCH = 4
SCRIPT = min(25, EVENTS // 6)
"""Batches of events in the life of one server."""
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
PICTURES, HALLS, PEOPLE = 7, 3, 6
folders = itertools.count()
done: Counter[str] = Counter()
"""How many events of each kind there were."""

pictures, places, people, whiches = st.integers(1, PICTURES), st.integers(0, HALLS - 1), st.integers(0, PEOPLE - 1), st.integers(0, 9)


def weighed(**weights: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Return events of several kinds, some more often than others."""
    kinds = [st.tuples(st.just(name.replace("_", " ")), *how) for name, (weight, *how) in weights.items() for _ in range(weight)]
    return st.sampled_from(kinds).flatmap(lambda kind: kind)


UNHEARD = {
    "react": (16, pictures, people, whiches),
    "unreact": (6, pictures, whiches),
    "delete_entry": (3, pictures),
    "delete_showing": (1, pictures, whiches),
    "delete_many": (2, st.sets(pictures, min_size=1, max_size=4), st.booleans()),
    "clear": (2, pictures, whiches, st.sampled_from([STAR, None, "👍"])),
    "remove_hall": (1, places),
}
HEARD = UNHEARD | {"press": (10, pictures, people, whiches), "share": (6, pictures), "withdraw": (1, pictures, whiches)}
unheard, heard = weighed(**UNHEARD), weighed(**HEARD)
events = weighed(
    **HEARD,
    threshold=(2, st.sampled_from([0, 1, 1, 2, 2, 3])),
    gallery=(4, places),
    restrict=(1, places, st.booleans()),
    delete_result=(1, pictures, st.integers(0, 2)),
    fail=(3, st.integers(1, 3), st.sampled_from(["", "/messages$", "/messages/", "/reactions"])),
    restart=(3, st.lists(unheard, max_size=5)),
    blind=(3, places, st.lists(heard, max_size=3)),
    reconnect=(1,),
)


@given(st.lists(st.lists(events, min_size=1, max_size=2 * BATCH - 1), min_size=SCRIPT, max_size=SCRIPT))
@settings(max_examples=EVENTS // (SCRIPT * BATCH) + 1, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
def play(folder: Path, script: list[list[tuple[Any, ...]]]) -> None:
    faults = Faults()
    logging.getLogger().addHandler(faults)
    try:
        asyncio.run(live(folder / str(next(folders)), script))
    finally:
        logging.getLogger().removeHandler(faults)
    assert faults.records == []


@pytest.mark.timeout(3600)
# discord.py lets a thread of its heart beat live on that belongs to a connection before; it notices after 41 s that its loop is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_gallery_is_what_the_stars_say_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, addresses: None) -> None:
    monkeypatch.setattr(board, "RETRY_S", 0.05)
    done.clear()
    play(tmp_path)
    seen = {name: done.pop(name) for name in ("looks", "entries seen")}
    sys.stdout.write(f"{done.total()} events: {dict(done)}; {seen}\n")
    # How many of the drawn events can happen differs from run to run.
    assert done.total() >= EVENTS // 2


async def live(folder: Path, script: list[list[tuple[Any, ...]]]) -> None:
    """Let a server live through a script, and look at its gallery after every batch of events."""
    async with Loopback() as server:
        life = Life(server, folder)
        await life.start()
        try:
            await life.begin()
            for batch in script:
                await life.through(batch)
        finally:
            await life.stop()
        if server.contract is not None:
            assert server.violations == []


def name_of(message: Message) -> str:
    """Return the name of a message's file."""
    return message.attachments[0].filename if message.attachments else ""


class Life:
    """A server with a bot, pictures and people; knows of Discord only what people see, and of the bot's memory nothing before it is compared."""

    def __init__(self, server: Loopback, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.painter = ScriptedPainter(steps=1)
        other = User(server.world.snowflake(), "another bot", bot=True)
        server.world.take_user(other)
        self.people = [server.ann, server.ben, server.olga, server.add_user("mona"), server.add_user("cleo"), other]
        self.halls = [server.add_channel(f"hall {number}") for number in range(HALLS)]
        self.gallery: Channel | None = self.halls[0]
        self.threshold = 1
        self.cards: dict[int, Message] = {}
        self.creators: dict[int, User] = {}
        self.adult: set[int] = set()
        self.shown: dict[int, list[Message]] = {picture: [] for picture in range(1, PICTURES + 1)}
        """Messages that show a picture alone, but for its entries."""
        self.shared: set[int] = set()
        self.pressed: dict[int, set[int]] = {}
        self.deleted: set[int] = set()
        """Pictures whose results were deleted."""
        self.steady: dict[int, tuple[Message, set[int]]] = {}
        """Entries that must stay, as long as those who star their pictures throughout are enough."""

    # The bot.

    async def start(self) -> None:
        self.history = await History.open(self.folder)
        queue = Queue(self.history, Limits(waiting=200, per_user=50, per_server=100))
        worker = Worker(queue, self.history, lambda: self.painter, preview_every_s=60)
        self.bot = Reverie(queue, self.history, worker, 60, Endpoint(self.server.api, self.server.gateway))
        await self.bot.__aenter__()
        self.tasks = [asyncio.create_task(self.bot.start(self.server.token)), asyncio.create_task(worker.run())]
        await self.server.wait_for(lambda: self.tasks[0].done() or (self.bot.is_ready() and self.bot.board.is_in_sight(self.server.guild.id)))

    async def stop(self) -> None:
        await self.bot.__aexit__(None, None, None)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.history.close()

    async def settled(self) -> None:
        """Wait until the bot has heard of everything, and has done everything about it."""
        async with asyncio.timeout(20):
            calm = 0
            while calm < 2:
                calm = calm + 1 if self.is_calm() else 0
                await asyncio.sleep(0.002)

    def is_calm(self) -> bool:
        sessions = self.server.sessions
        if len(sessions) != 1 or self.bot.shards[0]._parent.ws.sequence != sessions[0].sequence:
            return False
        answering = any(task.get_name().startswith(ANSWERING) for task in asyncio.all_tasks())
        return not answering and self.bot.board._quiet.is_set()

    # The beginning.

    async def begin(self) -> None:
        """Paint pictures in several places: of grids, alone, in a thread, for adults."""
        server = self.server
        side, hidden = server.add_channel("side"), server.add_channel("hidden", nsfw=True)
        below = server.add_thread(side, "below")
        await self.choose("gallery", str(self.halls[0].id))
        await self.choose("gallery_stars", "1")
        plan = [
            (server.ann, server.general, 2),
            (server.ann, side, 1),
            (server.ben, below, 1),
            (server.ben, server.general, 2),
            (server.ann, hidden, 1),
        ]
        for user, place, count in plan:
            card = await dreamt(server, count, user, place)
            for _ in range(count):
                picture = len(self.cards) + 1
                self.cards[picture], self.creators[picture] = card, user
                if count == 1:
                    self.shown[picture].append(card)
                if place is hidden:
                    self.adult.add(picture)
        enlarged = await server.press(server.olga, self.cards[5], "reverie:u:4:0")
        self.shown[5].append(await answered(server, enlarged))
        for picture in (1, 3, 4, 5):
            await self.do("share", picture)
        await self.settled()
        self.check([])

    async def choose(self, name: str, value: str | None) -> None:
        await self.bot.preferences.choose(Level.SERVER, self.server.guild.id, name, value)
        await self.bot.board.touch_server(self.server.guild.id)

    # What should be.

    def entries_of(self, picture: int) -> list[Message]:
        halls = [message for hall in self.halls for message in hall.messages]
        return [
            message for message in halls for file in message.attachments if (found := ENTRY.fullmatch(file.filename)) and int(found[2]) == picture
        ]

    def showing(self, picture: int) -> list[Message]:
        return [message for message in self.shown[picture] if not message.deleted] + self.entries_of(picture)

    def given(self, picture: int) -> set[tuple[int, int]]:
        """Return who has starred a picture by which message, and by none."""
        bots = {person.id for person in (*self.people, self.server.bot) if person.bot}
        by_message = {(person, message.id) for message in self.showing(picture) for person in message.reactions.get(STAR, []) if person not in bots}
        return by_message | {(person, 0) for person in self.pressed.get(picture, ())}

    def stars(self, picture: int) -> set[int]:
        return {person for person, _ in self.given(picture)} - {self.creators[picture].id}

    def due(self) -> dict[int, list[int]]:
        """Return the pictures that the gallery should show now, and with how many stars."""
        if self.gallery is None:
            return {}
        fitting = self.shared - self.deleted - (set() if self.gallery.nsfw else self.adult)
        return {picture: [len(self.stars(picture))] for picture in sorted(fitting) if len(self.stars(picture)) >= self.threshold}

    def note(self) -> None:
        """Remember which entries may not be exchanged for others."""
        due = self.due()
        kept = {}
        for picture, (message, people_) in self.steady.items():
            still = people_ & self.stars(picture)
            if picture in due and not message.deleted and message.channel is self.gallery and len(still) >= self.threshold:
                kept[picture] = (message, still)
        self.steady = kept

    async def through(self, batch: list[tuple[Any, ...]]) -> None:
        """Live through events that follow each other at once; then the gallery shows what the stars say."""
        self.steady = {picture: (self.entries_of(picture)[0], self.stars(picture)) for picture in self.due()}
        for event in batch:
            await self.do(*event)
            self.note()
        await self.settled()
        self.check(batch)
        done["looks"] += 1
        done["entries seen"] += len(self.due())
        found = await self.history.database.rows("SELECT picture, user_id, message_id FROM star WHERE picture IN (SELECT picture FROM share)")
        expected = {(picture, *star) for picture in self.shared for star in self.given(picture)}
        assert {tuple(row) for row in found} == expected, batch
        assert await self.bot.gallery.doomed() == []
        assert {share.picture for share in await self.bot.gallery.of_server(self.server.guild.id)} == self.shared

    def check(self, batch: list[tuple[Any, ...]]) -> None:
        found = {hall.name: entries(hall) for hall in self.halls if not hall.deleted}
        expected = {hall.name: self.due() if hall is self.gallery else {} for hall in self.halls if not hall.deleted}
        assert found == expected, f"after {batch}"
        assert not [message for hall in self.halls for message in hall.messages if not message.ephemeral and not ENTRY.fullmatch(name_of(message))]
        assert not [message for message, _ in self.steady.values() if message.deleted], f"exchanged after {batch}"

    # What happens.

    async def do(self, kind: str, *how: Any) -> None:
        done[kind] += 1
        await getattr(self, "do_" + kind.replace(" ", "_"))(*how)

    def one_of(self, picture: int, which: int) -> Message | None:
        """Return a message that shows a picture, or else the card."""
        found = self.showing(picture) or [card for card in [self.cards[picture]] if not card.deleted]
        return found[which % len(found)] if found else None

    async def do_react(self, picture: int, person: int, which: int) -> None:
        if (message := self.one_of(picture, which)) is not None:
            await self.server.react(self.people[person], message, STAR)

    async def do_unreact(self, picture: int, which: int) -> None:
        starred = [(person, message) for message in self.showing(picture) for person in self.people if person.id in message.reactions.get(STAR, [])]
        if starred:
            person, message = starred[which % len(starred)]
            await self.server.unreact(person, message, STAR)

    async def do_clear(self, picture: int, which: int, emoji: str | None) -> None:
        if (message := self.one_of(picture, which)) is not None:
            await self.server.clear_reactions(message, emoji)

    async def do_delete_entry(self, picture: int) -> None:
        for message in self.entries_of(picture):
            await self.server.delete(message)

    async def do_delete_showing(self, picture: int, which: int) -> None:
        if (message := self.one_of(picture, which)) is not None:
            await self.server.delete(message)

    async def do_delete_many(self, numbers: set[int], more: bool) -> None:
        """Delete entries, and with `more` the messages with a button for their stars."""
        tellers = [message for picture in numbers if more for message in self.with_button(picture)]
        found = {message.id: message for message in [*tellers, *(message for picture in numbers for message in self.entries_of(picture))]}
        await self.server.delete_many([*found.values()])

    async def do_remove_hall(self, number: int) -> None:
        hall = self.halls[number]
        if not hall.deleted:
            self.server.remove_channel(hall)
            self.gallery = None if self.gallery is hall else self.gallery
            hall.messages.clear()

    def with_button(self, picture: int) -> list[Message]:
        return [message for message in self.showing(picture) if any(f"reverie:star:{picture}:" in str(row) for row in message.components)]

    async def do_press(self, picture: int, person: int, which: int) -> None:
        buttons, user = self.with_button(picture), self.people[person]
        if buttons and not user.bot:
            await pressed(self.server, user, buttons[which % len(buttons)], cards.Act.STAR)
            if picture in self.shared and self.creators[picture] is not user:
                self.pressed.setdefault(picture, set()).symmetric_difference_update({user.id})

    async def do_share(self, picture: int) -> None:
        card, user = self.cards[picture], self.creators[picture]
        if card.deleted:
            return
        use = await self.server.press(user, card, named(card, cards.Act.SHARE))
        message = await self.answer(use)
        if message.content == "Share which picture?":
            numbers = [part["custom_id"] for row in message.components for part in row["components"]]
            first = min(other for other, one in self.cards.items() if one is card)
            message = await self.answer(await self.server.press(user, message, numbers[picture - first]))
        if self.gallery is None or (picture in self.adult and not self.gallery.nsfw):
            assert message.ephemeral and "gallery" in message.content
            return
        self.shared.add(picture)
        if not message.ephemeral:
            self.shown[picture].append(message)

    async def answer(self, use: Interaction) -> Message:
        """Return what was answered, when it was also done."""
        return await answered(self.server, use)

    async def do_withdraw(self, picture: int, which: int) -> None:
        if buttons := self.with_button(picture):
            button = f"reverie:withdraw:{picture}:0"
            await pressed(self.server, self.creators[picture], buttons[which % len(buttons)], cards.Act.WITHDRAW, button)
            self.shared.discard(picture)
            self.pressed.pop(picture, None)

    async def do_threshold(self, least: int) -> None:
        self.threshold = least
        await self.choose("gallery_stars", str(least))

    async def do_gallery(self, number: int) -> None:
        if self.halls[number].deleted:
            self.halls[number] = self.server.add_channel(f"hall {number}")
            await self.server.wait_for(lambda: self.bot.get_channel(self.halls[number].id))
        self.gallery = self.halls[number]
        await self.choose("gallery", str(self.gallery.id))

    async def do_restrict(self, number: int, nsfw: bool) -> None:
        if not self.halls[number].deleted:
            self.server.restrict(self.halls[number], nsfw)

    async def do_delete_result(self, picture: int, chance: int) -> None:
        card = self.cards[picture]
        if chance or card.deleted:
            return
        await pressed(self.server, self.creators[picture], card, cards.Act.DELETE)
        await self.server.wait_for(lambda: card.deleted)
        mine = {other for other, one in self.cards.items() if one is card}
        self.deleted |= mine
        self.shared -= mine
        for other in mine:
            self.pressed.pop(other, None)

    async def do_fail(self, times: int, path: str) -> None:
        self.server.fail_next(times, 503, f"/channels/.*{path}")

    async def do_reconnect(self) -> None:
        self.server.reconnect()

    async def do_restart(self, missed: list[tuple[Any, ...]]) -> None:
        await self.stop()
        for event in missed:
            await self.do(*event)
            self.note()
        await self.start()

    async def do_blind(self, number: int, missed: list[tuple[Any, ...]]) -> None:
        """Let the bot not see a hall for a while."""
        hall = self.halls[number]
        if not hall.deleted:
            hall.deny(permissions.VIEW_CHANNEL)
        for event in missed:
            await self.do(*event)
            self.note()
        if not hall.deleted:
            hall.allow(permissions.VIEW_CHANNEL)
