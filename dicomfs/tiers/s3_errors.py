"""Errors of the S3 client as errors of a tier: what happened, whether a retry makes sense, what to do.

Owns the list of error codes: those of Amazon's API reference, and of Ceph, MinIO and Swift where they have
their own.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3.exceptions
from botocore import exceptions
from botocore.parsers import ResponseParserError

from dicomfs.errors import ObjectCold, ObjectNotFound, TierError, TierFull, TransientTierError

_ABSENT = frozenset({"NoSuchKey", "NoSuchVersion"})
_FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "StorageFull"})
_TRANSIENT = frozenset(
    {
        "BadDigest",  # damaged on the way; our own digests were right when they were computed
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "NoSuchUpload",
        "OperationAborted",
        "RequestTimeout",
        "RequestThrottled",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_EXPIRED = "the credentials have expired: renew them"
_WRONG = "the credentials are wrong: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile"
_NONE = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
_REGION = "the bucket is in another region: set the region of the tier, or AWS_DEFAULT_REGION"
_KMS = "the key of the store's key management can't be used: check kms_key and the rights on it"
_ADVICE = {
    "AccessDenied": "access denied: the credentials need the rights to get, put, delete and list objects",
    "AllAccessDisabled": "access denied: the store has disabled this account or bucket",
    "AuthorizationHeaderMalformed": _REGION,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "IllegalLocationConstraintException": _REGION,
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "307": _REGION,
    "InvalidAccessKeyId": _WRONG,
    "InvalidToken": _WRONG,
    "SignatureDoesNotMatch": _WRONG,
    "UnrecognizedClientException": _WRONG,
    "403": "access denied: check the credentials, their rights, and the clock of this machine",
    "InvalidStorageClass": "the store does not know this storage class: correct storage_class",
    "NoSuchBucket": "there is no such bucket: make it, or correct the URL of the tier",
    "InvalidBucketName": "impossible name of a bucket: correct the URL of the tier",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: set it (NTP)",
    "RequestExpired": "the clock of this machine is wrong: set it (NTP)",
    "UserSuspended": "access denied: the store has suspended this user",
}
_NO_ANSWER = (
    exceptions.ConnectionError,  # refused, not in time, TLS
    exceptions.HTTPClientError,  # reset, silent for too long
    exceptions.IncompleteReadError,
    ResponseParserError,  # an answer that is no answer of S3
    exceptions.ResponseStreamingError,
)
_LONGEST_MESSAGE = 200


class AlreadyTaken(Exception):
    """A conditional put found an object under the key.  Never leaves the tier, and is no DicomfsError."""


class NotConditional(Exception):
    """The store does not know conditional puts.  Never leaves the tier either."""


@contextmanager
def translated(tier: str, key: str) -> Iterator[None]:
    """Raise errors of the client, and of the connection below it, as errors of ``tier``."""
    try:
        yield
    except exceptions.ClientError as error:
        raise _answered(tier, key, error) from error
    except _NO_ANSWER as error:
        raise _unanswered(tier, key, error) from error
    except exceptions.BotoCoreError as error:
        raise _not_asked(tier, key, error) from error
    except (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
        raise TransientTierError(tier, key, f"the connection failed ({type(error).__name__})") from error


def code_of(error: exceptions.ClientError) -> str:
    """The error code in the answer; the HTTP status where an answer had no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: exceptions.ClientError) -> int:
    """The HTTP status of the answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answered(tier: str, key: str, error: exceptions.ClientError) -> TierError:
    code, status = code_of(error), status_of(error)
    if code in _ABSENT or (code == "404" and key):
        return ObjectNotFound(tier, key)
    if code == "InvalidObjectState":
        return ObjectCold(tier, key, restoring=False)
    if code in _FULL or status == 507:
        return TierFull(tier, key, f"the store is full, or a quota is reached ({code})")
    if code in _ADVICE:
        return TierError(tier, key, f"{_ADVICE[code]} ({code})")
    if code.startswith("KMS."):
        return TierError(tier, key, f"{_KMS} ({code})")
    text = str(error.response.get("Error", {}).get("Message") or "").encode("ascii", "replace").decode()
    problem = f"the store answered {status} {code}" + (f": {text[:_LONGEST_MESSAGE]}" if text else "")
    if code in _TRANSIENT or status in (408, 429) or (status >= 500 and status != 501):
        return TransientTierError(tier, key, problem)
    return TierError(tier, key, problem)


def _unanswered(tier: str, key: str, error: Exception) -> TierError:
    if isinstance(error, exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return TierError(
            tier, key, "the store's certificate is not trusted: name its authority in AWS_CA_BUNDLE"
        )
    return TransientTierError(tier, key, f"no answer from the store ({type(error).__name__})")


def _not_asked(tier: str, key: str, error: exceptions.BotoCoreError) -> TierError:
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return TierError(tier, key, _NONE)
    if isinstance(error, exceptions.UnauthorizedSSOTokenError | exceptions.TokenRetrievalError):
        return TierError(tier, key, _EXPIRED)
    return TierError(tier, key, f"the store can't be asked: {error}")
