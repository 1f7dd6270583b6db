"""Name the RPCs that kagflow uses, with kagglesdk's own request types and service clients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from kagflow.errors import NetworkError
from kagflow.ship.remote_errors import BusyError
from kagflow.ship.remote_transport import BUDGET, Transport, pause
from kagflow.ship.remote_types import rows, words

PAGE = 200
WRITES = 3  # times that a write is sent at most
LOOKS = 3  # looks for a write whose fate is not known
Result = TypeVar("Result")


class Calls:
    """Share one transport, and one folder for half-done work, among the groups of calls."""

    def __init__(self, transport: Transport, state: Path) -> None:
        self.transport = transport
        self.state = state

    def rpc(self, service: str, method: str, fields: dict[str, Any] | None = None) -> Any:
        """Call one RPC with JSON field names; return its JSON object or the link it gives."""
        call = getattr(_client_class(service)(self.transport), method)
        request_type = inspect.signature(call).parameters["request"].annotation
        return call(request_type.from_dict(fields or {}))

    def pages(
        self, service: str, method: str, fields: dict[str, Any], key: str
    ) -> Iterator[dict[str, Any]]:
        """Yield every item of a listing, to its last page."""
        for answer in self.answers(service, method, fields):
            yield from rows(answer, key)

    def answers(
        self, service: str, method: str, fields: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Yield every page of a listing; a server that repeats a page's token ends it."""
        token, seen = "", {""}
        while True:
            page = {**fields, "pageSize": PAGE, **({"pageToken": token} if token else {})}
            answer = self.rpc(service, method, page)
            yield answer
            token = words(answer.get("nextPageToken"))
            if token in seen:
                return
            seen.add(token)

    def write(self, once: Callable[[], Result], look_up: Callable[[], Result | None]) -> Result:
        """Do a write whose answer may be lost: before each repeat, look whether it happened.

        After a 429 nothing has happened, and one look is enough; else what was accepted may take
        a while to show. Raises what the last attempt raised.
        """
        failure = NetworkError("not tried")
        for attempt in range(1, WRITES + 1):
            try:
                return once()
            except NetworkError as error:
                failure = error
            found = self._look(failure, pause(attempt), look_up)
            if found is not None:
                return found
        raise failure

    def _look(
        self, failure: NetworkError, wait: float, look_up: Callable[[], Result | None]
    ) -> Result | None:
        looks = LOOKS
        if isinstance(failure, BusyError):
            looks = 1 if failure.status == 429 else LOOKS
            wait = wait if failure.after is None else failure.after
        if wait > BUDGET:
            raise failure
        for look in range(looks):
            self.transport.sleep(wait if look == 0 else pause(look + 1))
            found = look_up()
            if found is not None:
                return found
        return None


@lru_cache
def _client_class(service: str) -> Any:
    # Imported here: the SDK costs a quarter of a second, which --help must not pay.
    from kagglesdk.blobs.services.blob_api_service import BlobApiClient
    from kagglesdk.competitions.services.competition_api_service import CompetitionApiClient
    from kagglesdk.datasets.services.dataset_api_service import DatasetApiClient
    from kagglesdk.kernels.services.kernels_api_service import KernelsApiClient
    from kagglesdk.security.services.oauth_service import OAuthClient

    return {
        "blobs": BlobApiClient,
        "competitions": CompetitionApiClient,
        "datasets": DatasetApiClient,
        "kernels": KernelsApiClient,
        "security": OAuthClient,
    }[service]
