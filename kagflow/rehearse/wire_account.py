"""Who asks, and what they have left: token introspection and the weekly accelerator quota."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from kagglesdk.kernels.types import kernels_api_service as api
from kagglesdk.security.types.oauth_service import IntrospectTokenRequest, IntrospectTokenResponse

from kagflow.rehearse.quota import allowed_hours, quota_used, week_start
from kagflow.rehearse.wire import USER, Call, Handler, make


def introspect_token(call: Call, request: IntrospectTokenRequest) -> Any:
    """Answer whose token this is; served before authentication."""
    if request.token != call.store.token:
        return make(IntrospectTokenResponse, active=False)
    return make(
        IntrospectTokenResponse, active=True, username=USER, user_id=1, scope="resources.admin:*"
    )


def _quota(call: Call, accelerator: str) -> api.ApiAcceleratorQuota:
    used, held = quota_used(call.store, accelerator)
    allowed = timedelta(hours=allowed_hours(call.store, accelerator) or 0.0)
    return make(
        api.ApiAcceleratorQuota,
        time_used=timedelta(seconds=used),
        time_reserved=timedelta(seconds=held),
        total_time_allowed=allowed,
        minimum_time_allowed=allowed,
        has_ever_run=used > 0,
    )


def get_accelerator_quota_statistics(call: Call, request: Any) -> Any:
    """Answer the hours used and held since the week began, and when they renew."""
    del request
    weekday = call.store.settings.quota_weekday
    renewal = week_start(datetime.now(UTC), weekday) + timedelta(days=7)
    return make(
        api.ApiGetAcceleratorQuotaStatisticsResponse,
        quota_refresh_time=renewal.replace(tzinfo=None),
        gpu_quota=_quota(call, "gpu"),
        tpu_quota=_quota(call, "tpu"),
    )


HANDLERS: Mapping[str, Handler] = {
    "security.OAuthService/IntrospectToken": introspect_token,
    "kernels.KernelsApiService/GetAcceleratorQuotaStatistics": get_accelerator_quota_statistics,
}
OPEN_TO_ALL = frozenset({"security.OAuthService/IntrospectToken"})
