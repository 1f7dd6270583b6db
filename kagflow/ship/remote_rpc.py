"""Name the RPCs that kagflow uses, with kagglesdk's own request types and service clients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from kagflow.errors import KagflowError, NetworkError
from kagflow.ship.remote_transport import Transport, pause

PAGE = 200
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
        token = ""
        while True:
            page = {**fields, "pageSize": PAGE, **({"pageToken": token} if token else {})}
            answer = self.rpc(service, method, page)
            yield from answer.get(key) or []
            following = answer.get("nextPageToken") or ""
            if not following or following == token:
                return
            token = following

    def write(self, once: Callable[[], Result], look_up: Callable[[], Result | None]) -> Result:
        """Do a write whose answer may be lost: before each repeat, look whether it happened.

        Raises what the last attempt raised.
        """
        failure: KagflowError = NetworkError("not tried")
        for attempt in range(1, 4):
            try:
                return once()
            except NetworkError as error:
                failure = error
            self.transport.sleep(pause(attempt))
            found = look_up()
            if found is not None:
                return found
        raise failure


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
