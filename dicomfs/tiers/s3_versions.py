"""Older versions that a bucket keeps of deleted objects: found and removed for good.

Owns what is said where the store refuses: versions may be locked, and the right to remove them is another one
than that to delete objects.
"""

from __future__ import annotations

from botocore.exceptions import ClientError

from dicomfs.errors import TierError
from dicomfs.model import ObjectKey
from dicomfs.tiers.s3_client import S3Client
from dicomfs.tiers.s3_errors import code_of, translated

_REFUSED = frozenset({"AccessDenied", "403", "Forbidden", "InvalidRequest"})
_NONE_KEPT = frozenset({"NotImplemented", "MethodNotAllowed"})
"""Stores that know no versions."""


def remove_versions(client: S3Client, tier: str, key: ObjectKey, bucket: str, name: str) -> int:
    """Remove every version of an object, delete markers too; returns how many there were.

    Raises:
        TierError: the store cannot be asked, keeps a version locked, or does not let us.
    """
    removed = 0
    with translated(tier, key):
        for version in _versions(client, tier, key, bucket, name):
            try:
                client.get().delete_object(Bucket=bucket, Key=name, VersionId=version)
            except ClientError as error:
                if code_of(error) not in _REFUSED:
                    raise
                raise TierError(
                    tier,
                    key,
                    f"the store keeps version {version} of it: object lock holds it until its time is over, "
                    "or the right s3:DeleteObjectVersion is missing; gc tries again",
                ) from error
            removed += 1
    return removed


def _versions(client: S3Client, tier: str, key: ObjectKey, bucket: str, name: str) -> list[str]:
    found: list[str] = []
    try:
        pages = client.get().get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=name)
        for page in pages:
            kept = (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            found += [one["VersionId"] for one in kept if one["Key"] == name]
    except ClientError as error:
        if code_of(error) in _NONE_KEPT:
            return []
        if code_of(error) in _REFUSED:
            raise TierError(
                tier,
                key,
                "deleted, but the store may keep older versions, and does not let us look: the right "
                "s3:ListBucketVersions is missing",
            ) from error
        raise
    return found
