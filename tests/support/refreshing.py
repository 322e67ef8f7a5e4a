"""People with clients that refresh all the time, and try again without an answer."""

from __future__ import annotations

import http.client
import threading
from collections import Counter, defaultdict
from contextlib import suppress

from tests.support.raw_http import post_json

#: Seconds between two tries of one client.
_PAUSE = 0.02


class RefreshingClient:
    """One session that is refreshed without a pause, in a thread of its own.

    Attributes:
        statuses: how often each status came; 0: no answer.
        successors: the answer to each refresh token shown.
        refused: the answer that ended the session, if one did: a forced logout.
    """

    def __init__(self, port: int, username: str, password: str) -> None:
        self._port = port
        account = {"username": username, "password": password}
        answer = post_json(port, "/auth/login", account)
        assert answer.status == 200, answer
        self._token: str = answer.json()["refresh_token"]
        self.statuses: Counter[int] = Counter()
        self.successors: defaultdict[str, set[str]] = defaultdict(set)
        self.refused: bytes | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._refresh)

    def __enter__(self) -> RefreshingClient:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def done(self) -> int:
        """How often it was given a successor."""
        return self.statuses[200]

    def forked(self) -> list[set[str]]:
        """Return the successors of each token that was given more than one."""
        return [many for many in self.successors.values() if len(many) > 1]

    def _refresh(self) -> None:
        while self.refused is None and not self._is_over.wait(_PAUSE):
            status = 0
            with suppress(OSError, http.client.HTTPException):
                body = {"refresh_token": self._token}
                answer = post_json(self._port, "/auth/refresh", body)
                status = answer.status
                if status == 200:
                    successor: str = answer.json()["refresh_token"]
                    self.successors[self._token].add(successor)
                    self._show_again()
                    self._token = successor
                elif status < 500:
                    self.refused = answer.body
            self.statuses[status] += 1

    def _show_again(self) -> None:
        """Now and then ask once more, as if the answer had been lost."""
        if self.done % 5:
            return
        answer = post_json(self._port, "/auth/refresh", {"refresh_token": self._token})
        if answer.status == 200:
            self.successors[self._token].add(answer.json()["refresh_token"])
        elif answer.status < 500:
            self.refused = answer.body
