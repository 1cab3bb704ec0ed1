"""What was read and dreamt before is not worked out again, and what is kept is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from engine.jobs import Progress, Request
from engine.unclip import Painter
from engine.unclip.caches import Cache


@given(st.integers(1, 5), st.lists(st.integers(0, 9)))
def test_a_cache_keeps_what_was_used_last(most: int, keys: list[int]) -> None:
    cache: Cache[str] = Cache(most)
    used: list[int] = []
    known = 0
    for key in keys:
        expected = str(key) if key in used[-most:] else None
        known += expected is not None
        assert cache.get(key) == expected
        cache.keep(key, str(key))
        used = [*(other for other in used if other != key), key]
    assert (cache.asked, cache.known) == (len(keys), known)


def test_who_asks_again_skips_what_is_known(painter: Painter) -> None:
    heard: list[Progress] = []

    def stages(prompt: str, seed: int, count: int = 2) -> tuple[list[bytes], set[str]]:
        heard.clear()
        painting = painter.paint(Request(prompt, seed=seed, count=count, steps=2), heard.append)
        assert heard[-1].done == heard[-1].total
        return [picture.png for picture in painting.pictures], {progress.stage for progress in heard}

    first, walked = stages("a cat on a red background", 5)
    assert "prior" in walked and painter.cached == {"texts": (1, 0), "dreams": (2, 0)}
    again, walked = stages("a cat on a red background", 5)
    assert "prior" not in walked and again == first and painter.cached == {"texts": (2, 1), "dreams": (4, 2)}
    later, walked = stages("a cat on a red background", 6)
    assert "prior" in walked, "seed 7 is new"
    assert later[0] == first[1] and painter.cached == {"texts": (3, 2), "dreams": (6, 3)}
    assert "prior" in stages("a dog on a red background", 5)[1]
    painter.dream(["a cat on a red background"], seed=5, count=2, steps=2, prior_steps=3)
    assert painter.cached["dreams"] == (10, 3), "other settings dream something else"
