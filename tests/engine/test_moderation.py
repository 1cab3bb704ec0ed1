import asyncio
import time
from pathlib import Path

import pytest

from engine.history import History
from engine.jobs import Job, Origin, Request
from engine.moderation import Decision, Entry, Moderation
from engine.rights import Rights

SERVER, ELSEWHERE, CHANNEL = 70, 71, 50
MOD, OTHER_MOD, BAD, GOOD = 11, 12, 888_777_666_555_444_333, 14


async def loaded(history: History) -> Moderation:
    moderation = Moderation(history)
    await moderation.load()
    return moderation


@pytest.fixture
async def moderation(history: History) -> Moderation:
    return await loaded(history)


async def job_of(history: History, user_id: int = BAD) -> Job:
    return await history.add(Request("a cat", 1), Origin(user_id, CHANNEL, SERVER))


def acts(entries: list[Entry]) -> list[tuple[int | None, str, int | None, dict[str, object]]]:
    return [(entry.user_id, entry.act, entry.subject_id, entry.details) for entry in entries]


# Bans.


async def test_a_ban_holds_in_one_server_for_one_person(moderation: Moderation) -> None:
    assert await moderation.ban(SERVER, BAD, MOD, "spam")
    assert not await moderation.ban(SERVER, BAD, OTHER_MOD, "again")
    assert await moderation.is_banned(SERVER, BAD)
    assert not await moderation.is_banned(ELSEWHERE, BAD) and not await moderation.is_banned(SERVER, GOOD)
    assert acts(await moderation.log(SERVER, 9)) == [(MOD, "ban", BAD, {"reason": "spam"})]


async def test_a_ban_holds_after_a_restart(history: History, moderation: Moderation, tmp_path: Path) -> None:
    await moderation.ban(SERVER, BAD, MOD, "spam")
    name = moderation.person(SERVER, BAD)
    await history.close()
    after = await History.open(tmp_path / "data")
    try:
        again = await loaded(after)
        assert again.person(SERVER, BAD) == name and await again.is_banned(SERVER, BAD)
    finally:
        await after.close()


async def test_nobody_else_can_compute_the_name_of_a_person(history: History, moderation: Moderation, tmp_path: Path) -> None:
    other = await History.open(tmp_path / "other")
    try:
        names = {moderation.person(SERVER, BAD), moderation.person(ELSEWHERE, BAD), moderation.person(SERVER, GOOD)}
        assert len(names | {(await loaded(other)).person(SERVER, BAD)}) == 4
    finally:
        await other.close()


async def test_a_ban_outlives_the_name_of_whom_it_is_for(history: History, moderation: Moderation) -> None:
    await moderation.ban(SERVER, BAD, MOD, "spam")
    await Rights(history).erase_user(BAD)
    assert await moderation.is_banned(SERVER, BAD) and not await moderation.is_banned(SERVER, GOOD)
    assert [(who, reason) for who, reason, _ in await moderation.bans(SERVER, 9)] == [(None, "spam")]
    assert acts(await moderation.log(SERVER, 9)) == [(MOD, "ban", None, {"reason": "spam"})]
    for row in await history.database.rows("SELECT * FROM ban JOIN audit"):
        assert BAD not in tuple(row) and str(BAD) not in "".join(map(str, tuple(row)))
    assert not await moderation.ban(SERVER, BAD, MOD, "again")
    assert await moderation.unban(SERVER, BAD, MOD) and not await moderation.is_banned(SERVER, BAD)


async def test_who_is_unbanned_is_free_and_can_be_banned_again(moderation: Moderation) -> None:
    await moderation.ban(SERVER, BAD, MOD, "spam")
    await moderation.ban(ELSEWHERE, BAD, MOD, "spam")
    assert await moderation.unban(SERVER, BAD, OTHER_MOD) and not await moderation.unban(SERVER, BAD, OTHER_MOD)
    assert not await moderation.is_banned(SERVER, BAD) and await moderation.is_banned(ELSEWHERE, BAD)
    assert await moderation.ban(SERVER, BAD, MOD, "again")
    assert acts(await moderation.log(SERVER, 9))[1:] == [(OTHER_MOD, "unban", BAD, {}), (MOD, "ban", BAD, {"reason": "spam"})]


async def test_bans_are_listed_by_server_the_latest_first(moderation: Moderation, monkeypatch: pytest.MonkeyPatch) -> None:
    for moment, person in enumerate((23, 21, 22)):
        monkeypatch.setattr(time, "time", lambda moment=moment: 100.0 + moment)
        await moderation.ban(SERVER, person, MOD, f"reason {person}")
    await moderation.ban(ELSEWHERE, 24, MOD, "")
    assert await moderation.bans(SERVER, 2) == [(22, "reason 22", 102.0), (21, "reason 21", 101.0)]
    assert [who for who, *_ in await moderation.bans(SERVER, 9)] == [22, 21, 23]


# Reports.


async def test_a_person_reports_a_result_once_until_it_is_decided(history: History, moderation: Moderation) -> None:
    job, other = await job_of(history), await job_of(history)
    number = await moderation.report(SERVER, job, GOOD, "ugly", CHANNEL, 900)
    assert number is not None
    assert await moderation.report(SERVER, job, GOOD, "very ugly", CHANNEL, 901) is None
    second = await moderation.report(SERVER, job, MOD, "mine too", CHANNEL, 902)
    third = await moderation.report(SERVER, other, GOOD, "this too", CHANNEL, 903)
    found = await moderation.reported(number)
    assert found is not None and await moderation.reported(404) is None
    seen = (found.guild_id, found.job, found.user_id, found.reason, found.channel_id, found.message_id, found.decision)
    assert seen == (SERVER, job.id, GOOD, "ugly", CHANNEL, 900, None)
    assert [report.id for report in await moderation.open_reports(SERVER, 9)] == [number, second, third]
    assert await moderation.open_reports(SERVER, 1) == [found] and await moderation.open_reports(ELSEWHERE, 9) == []
    assert (await moderation.count_open(SERVER), await moderation.count_open(ELSEWHERE)) == (3, 0)
    assert await moderation.decide(found, MOD, Decision.DISMISSED, BAD)
    assert await moderation.report(SERVER, job, GOOD, "it still is", CHANNEL, 904) is not None


async def test_two_reports_of_a_person_at_once_are_one(history: History, moderation: Moderation) -> None:
    job = await job_of(history)
    numbers = await asyncio.gather(*(moderation.report(SERVER, job, GOOD, "ugly", CHANNEL, 900) for _ in range(2)))
    assert None in numbers and len(set(numbers)) == 2 and await moderation.count_open(SERVER) == 1


async def test_a_decision_ends_all_reports_of_a_result_and_only_those(history: History, moderation: Moderation) -> None:
    job, other = await job_of(history), await job_of(history)
    numbers = [await moderation.report(SERVER, one, person, "", CHANNEL, 900) for one, person in ((job, GOOD), (job, MOD), (other, GOOD))]
    first, second, left = [await moderation.reported(number or 0) for number in numbers]
    assert first is not None and second is not None and left is not None
    assert await moderation.decide(second, MOD, Decision.REMOVED, BAD)
    assert not await moderation.decide(first, OTHER_MOD, Decision.BANNED, BAD)
    assert [(await moderation.reported(report.id) or report).decision for report in (first, second, left)] == [
        Decision.REMOVED,
        Decision.REMOVED,
        None,
    ]
    assert await moderation.open_reports(SERVER, 9) == [left] and await moderation.count_open(SERVER) == 1
    assert not await moderation.is_banned(SERVER, BAD)
    assert acts(await moderation.log(SERVER, 9)) == [(MOD, "report removed", BAD, {"job": job.id, "report": second.id})]
    rows = await history.database.rows("SELECT decided_by, decided_at FROM report WHERE job = ?", job.id)
    assert all(row["decided_by"] == MOD and row["decided_at"] > 0 for row in rows)


async def test_of_two_who_decide_at_once_one_does(history: History, moderation: Moderation) -> None:
    number = await moderation.report(SERVER, await job_of(history), GOOD, "ugly", CHANNEL, 900)
    report = await moderation.reported(number or 0)
    assert report is not None
    decisions = (moderation.decide(report, by, Decision.BANNED, BAD) for by in (MOD, OTHER_MOD))
    assert sorted(await asyncio.gather(*decisions)) == [False, True]
    assert len(await moderation.log(SERVER, 9)) == 2


async def test_a_report_may_end_in_a_ban_for_its_reason(history: History, moderation: Moderation) -> None:
    job = await job_of(history)
    report = await moderation.reported(await moderation.report(SERVER, job, GOOD, "gore", CHANNEL, 900) or 0)
    assert report is not None and await moderation.decide(report, MOD, Decision.BANNED, BAD)
    assert await moderation.is_banned(SERVER, BAD) and not await moderation.is_banned(ELSEWHERE, BAD)
    assert [(who, reason) for who, reason, _ in await moderation.bans(SERVER, 9)] == [(BAD, "gore")]
    written = acts(await moderation.log(SERVER, 9))
    assert written == [(MOD, "ban", BAD, {"reason": "gore"}), (MOD, "report banned", BAD, {"job": job.id, "report": report.id})]


@pytest.mark.parametrize(("decision", "owner"), [(Decision.DISMISSED, BAD), (Decision.REMOVED, BAD), (Decision.BANNED, None)])
async def test_other_decisions_ban_nobody(history: History, moderation: Moderation, decision: Decision, owner: int | None) -> None:
    report = await moderation.reported(await moderation.report(SERVER, await job_of(history), GOOD, "gore", CHANNEL, 900) or 0)
    assert report is not None and await moderation.decide(report, MOD, decision, owner)
    assert await moderation.bans(SERVER, 9) == [] and not await moderation.is_banned(SERVER, BAD)


# The audit log.


async def test_the_audit_log_is_a_servers_own_and_starts_with_the_latest(moderation: Moderation) -> None:
    before = time.time()
    await moderation.note(SERVER, MOD, "setting", name="count", value="4 🦊")
    await moderation.note(ELSEWHERE, OTHER_MOD, "setting", name="steps")
    await moderation.ban(SERVER, BAD, MOD, "spam")
    await moderation.note(SERVER, OTHER_MOD, "remove", BAD, job=7, words=["a", "b"])
    lines = await moderation.log(SERVER, 9)
    assert acts(lines) == [
        (OTHER_MOD, "remove", BAD, {"job": 7, "words": ["a", "b"]}),
        (MOD, "ban", BAD, {"reason": "spam"}),
        (MOD, "setting", None, {"name": "count", "value": "4 🦊"}),
    ]
    assert all(before <= line.created_at <= time.time() for line in lines)
    assert await moderation.log(SERVER, 1) == lines[:1]
    assert await moderation.log(SERVER, 2, skip=1) == lines[1:] and await moderation.log(SERVER, 2, skip=3) == []
    assert acts(await moderation.log(ELSEWHERE, 9)) == [(OTHER_MOD, "setting", None, {"name": "steps"})]


async def test_what_a_server_decides_leaves_another_one_alone(history: History, moderation: Moderation) -> None:
    here = await job_of(history)
    away = await history.add(Request("a dog", 1), Origin(BAD, CHANNEL, ELSEWHERE))
    reports = []
    for server, job in ((SERVER, here), (ELSEWHERE, away)):
        reports.append(await moderation.reported(await moderation.report(server, job, GOOD, "", CHANNEL, 900) or 0))
    assert reports[0] is not None
    await moderation.decide(reports[0], MOD, Decision.BANNED, BAD)
    assert await moderation.open_reports(ELSEWHERE, 9) == [reports[1]]
    assert await moderation.bans(ELSEWHERE, 9) == [] and await moderation.log(ELSEWHERE, 9) == []
    assert not await moderation.unban(ELSEWHERE, BAD, MOD) and await moderation.is_banned(SERVER, BAD)
