"""Telling other programs how their requests fare, where the operator allows that."""

import asyncio
import contextlib
import logging
from collections.abc import Collection

import aiohttp
import yarl

from engine.studio.views import PredictionView

log = logging.getLogger(__name__)

PATIENCE_S = (1, 2, 4, 8, 15, 30, 60, 120, 240)
"""Waits between tries to tell of an end: eight minutes in all."""
ANSWER_S = 10.0


class Webhooks:
    """Sends webhooks to origins that are allowed, `https://hooks.example.com` or `http://10.0.0.7:9000`, and nowhere else."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = {yarl.URL(origin).origin() for origin in allowed}

    def may_go_to(self, address: str) -> bool:
        """Tell whether an address is allowed."""
        try:
            url = yarl.URL(address)
            return url.user is None and url.password is None and url.origin() in self._allowed
        except ValueError:
            return False

    async def send(self, address: str, view: PredictionView, *, patiently: bool = False) -> bool:
        """Tell how a request fares, once or until somebody hears; tell whether somebody did. No redirect is followed: it may lead anywhere."""
        if not self.may_go_to(address):
            log.warning("a webhook is not sent: the settings no longer allow its address")
            return False
        body = view.model_dump(mode="json")
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()) as session:
            for wait_s in (0, *(PATIENCE_S if patiently else ())):
                await asyncio.sleep(wait_s)
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with session.post(address, json=body, allow_redirects=False) as answer:
                        if answer.ok and answer.status < 300:
                            return True
        return False
