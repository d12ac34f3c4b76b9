"""The S3 client: boto3 with its retries off, every wait bounded, and requests counted.

Credentials, profile, region, endpoint, proxies and certificates come from the standard AWS environment
variables and configuration files; the options of the tier win over them.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config

from dicomfs.config import TierOptions
from dicomfs.tiers.bandwidth import Bandwidth

CONNECT_SECONDS = 5.0
"""A store further away than this answers no viewer; a lost SYN is sent again after 1 s and 3 s."""
READ_SECONDS = 10.0
"""How long the other side may be silent.  Stores answer within a second or two, or ask to be asked later."""
CONNECTIONS = 8
"""Requests at the same time.  One connection to a far store moves some 50 MB/s, a few fill a usual line."""


class PacedBody(io.BytesIO):
    """Bytes of a request that wait for their turn in the bandwidth when sent, not when signed."""

    def __init__(self, data: bytes, bandwidth: Bandwidth) -> None:
        super().__init__(data)
        self.sending = False
        self._bandwidth = bandwidth

    def read(self, size: int | None = -1, /) -> bytes:
        """At most one piece while sending, after its turn has come."""
        if not self.sending:
            return super().read(size)
        most = self._bandwidth.piece
        piece = super().read(most if size is None or size < 0 else min(size, most))
        self._bandwidth.take(len(piece))
        return piece


class S3Client:
    """The client, made at first use: looking for credentials may ask the network.  Thread-safe."""

    def __init__(self, options: TierOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._client: Any = None
        self._requests: Counter[str] = Counter()

    def get(self) -> Any:  # noqa: ANN401  boto3 makes its classes at run time
        """The boto3 client.  Raises botocore's errors for a profile or configuration that is wrong."""
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def requests(self) -> dict[str, int]:
        """HTTP requests sent so far, by name of the operation in the API (``GetObject``)."""
        with self._lock:
            return dict(self._requests)

    def _make(self) -> Any:  # noqa: ANN401
        core = botocore.session.Session(profile=self._options.profile)
        session = boto3.Session(botocore_session=core, region_name=self._options.region)
        client = self._client_of(session, None)
        host = urlsplit(client.meta.endpoint_url).hostname or ""
        chosen = core.get_scoped_config().get("s3", {})
        if "amazonaws." not in host and "addressing_style" not in chosen:
            # Few stores in a house have a name in DNS for each bucket.
            client = self._client_of(session, {"addressing_style": "path"})
        client.meta.events.register("before-send.s3", self._before_send)
        return client

    def _client_of(self, session: boto3.Session, s3: dict[str, str] | None) -> Any:  # noqa: ANN401
        settings = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=2 * CONNECTIONS,
            # The retry wrapper is the one place that retries.
            retries={"total_max_attempts": 1, "mode": "standard"},
            # We send SHA-256 of our own making; what stores do not know of others they may refuse.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            tcp_keepalive=True,
            s3=s3,
        )
        return session.client("s3", endpoint_url=self._options.endpoint, config=settings)

    def _before_send(self, request: Any, event_name: str, **_: object) -> None:  # noqa: ANN401
        with self._lock:
            self._requests[event_name.rpartition(".")[2]] += 1
        if isinstance(request.body, PacedBody):
            request.body.sending = True
