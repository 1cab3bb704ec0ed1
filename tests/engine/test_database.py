import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.database import NAME, Database, owners, rewrite, searchable


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path)
    yield opened
    await opened.close()


async def remembered(database: Database) -> list[str]:
    return [row["key"] for row in await database.rows("SELECT key FROM memory ORDER BY key")]


async def test_what_fails_in_the_middle_is_not_written_at_all(database: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        async with database.transaction():
            await database.insert("memory", {"key": "a", "value": "1"})
            await database.insert("memory", {"key": "a", "value": "2"})
    assert await remembered(database) == []
    # Nothing is left open by it.
    assert await database.change("INSERT INTO memory VALUES (?, ?)", "b", "1") == 1
    assert await remembered(database) == ["b"]


async def test_what_others_write_meanwhile_waits_and_is_kept(database: Database) -> None:
    begun = asyncio.Event()

    async def fail() -> None:
        async with database.transaction():
            await database.insert("memory", {"key": "lost", "value": ""})
            begun.set()
            await asyncio.sleep(0.05)
            raise LookupError

    async def write() -> None:
        await begun.wait()
        await database.change("INSERT INTO memory VALUES ('kept', '')")

    results = await asyncio.gather(fail(), write(), return_exceptions=True)
    assert isinstance(results[0], LookupError) and results[1] is None
    assert await remembered(database) == ["kept"]


async def test_writing_tells_how_many_rows_changed_and_adding_tells_the_number(database: Database) -> None:
    async with database.transaction():
        assert [await database.insert("draft", {"user_id": 5, "content": "old", "created_at": 1.0}) for _ in range(3)] == [1, 2, 3]
        assert await database.write("UPDATE draft SET content = :content WHERE id > :least", content="new", least=1) == 2
        await database.write_many("UPDATE draft SET user_id = ? WHERE id = ?", [(6, 1), (7, 3)])
    rows = await database.rows("SELECT content, user_id FROM draft WHERE id IN (?, ?)", 1, 3)
    assert [tuple(row) for row in rows] == [("old", 6), ("new", 7)]
    assert await database.change("DELETE FROM draft WHERE id = ?", 9) == 0


async def test_what_is_forgotten_is_in_no_file(database: Database, tmp_path: Path) -> None:
    async with database.transaction():
        for number in range(1, 300):
            words = {"rowid": number, "prompt": f"xylophone{number} zebra", "owner": owners(123456789, None)}
            await database.insert("job_words", words)
            await database.insert("memory", {"key": f"quagga{number}", "value": "okapi" * 50})

    def on_disk() -> bytes:
        return b"".join((tmp_path / name).read_bytes() for name in (NAME, f"{NAME}-wal"))

    # The index keeps only what differs from the word before.
    secrets = (b"ylophone", b"zebra", b"u123456789", b"quagga", b"okapi")
    assert all(secret in on_disk() for secret in secrets)
    async with database.transaction():
        await database.write("DELETE FROM memory")
        for number in range(1, 300):
            values = (number, f"xylophone{number} zebra", owners(123456789, None))
            await database.write("INSERT INTO job_words (job_words, rowid, prompt, owner) VALUES ('delete', ?, ?, ?)", *values)
    async with database.transaction():
        await database.write("INSERT INTO job_words (job_words) VALUES ('optimize')")
    rewrite(tmp_path / NAME)
    assert [secret for secret in secrets if secret in on_disk()] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a red fox", "a red fox"),
        ("fox猫 dog", "fox 猫 dog"),
        ("猫が好き", "猫 が 好 き"),
        ("ไทย", "ไ ท ย"),
        ("눈snow", "눈 snow"),
        ("\u1102\u116e\u11absnow", "눈 snow"),
        ("𠮷野家", "𠮷 野 家"),
        ("Żółć, Ёж και ß", "Żółć, Ёж και ß"),
        ("हिन्दी עברית عربي", "हिन्दी עברית عربي"),
    ],
)
def test_only_writing_without_spaces_is_taken_apart(text: str, words: str) -> None:
    assert searchable(text).split() == words.split()


def test_a_job_belongs_to_its_person_and_its_server_or_none() -> None:
    assert owners(5, 7) == "u5 g7" and owners(5, None) == "u5 g0" and owners(-5, None) == "h5 g0"
