"""S3 servers as tests use them: how clients find one, and buckets and prefixes of their own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.loaders
import pytest
from moto.server import ThreadedMotoServer

from dicomfs.config import TierOptions
from dicomfs.tiers.s3 import S3Tier

BUCKET = "tests"
_LOADER = botocore.loaders.create_loader()


@dataclass
class Server:
    """A running S3 server with a bucket."""

    environment: dict[str, str]
    """The variables by which AWS clients find it."""

    def client(self) -> Any:
        """A plain client, to look behind a tier's back."""
        return boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have AWS clients of this process find it, and nothing of the user's own configuration."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        # Reading the description of the protocol takes longer than most tests.
        monkeypatch.setattr("botocore.session.create_loader", lambda *_: _LOADER)
        for name, value in {**ISOLATED, **self.environment}.items():
            monkeypatch.setenv(name, value)

    def tier(self, options: TierOptions | None = None) -> S3Tier:
        """An empty tier, below a prefix that no other test has."""
        return S3Tier("external", BUCKET, f"prefix/{uuid.uuid4()}", options)


ISOLATED = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""So that no test depends on, or reaches, an account of whoever runs it."""


@contextmanager
def running_moto() -> Iterator[Server]:
    """moto on the loopback, in threads of this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        found = Server(
            {
                "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "moto",
                "AWS_SECRET_ACCESS_KEY": "moto",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        )
        found.client().create_bucket(Bucket=BUCKET)
        yield found
    finally:
        server.stop()
