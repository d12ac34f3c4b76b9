"""A misbehaving S3 server: nothing wrong comes back, what counts as stored is stored, waits are bounded."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator

import pytest

from dicomfs.config import TierOptions
from dicomfs.errors import (
    ObjectCold,
    ObjectExists,
    ObjectNotFound,
    TierError,
    TierFull,
    TransientTierError,
)
from dicomfs.model import ObjectKey
from dicomfs.tiers import s3_client, s3_objects, s3_upload
from dicomfs.tiers.base import ByteRange
from dicomfs.tiers.retry import RetryingTier, RetryPolicy
from dicomfs.tiers.s3 import S3Tier
from tests.s3.faulty_proxy import (
    Exchange,
    Fault,
    FaultyProxy,
    answers,
    breaks_off,
    falls_silent,
    flips_a_bit,
    hangs_up,
    is_silent,
    loses_the_answer,
    passes_on,
    pretends,
    receives_wrong,
    shifts_the_range,
    talks_html,
    trickles,
    without,
)
from tests.s3.servers import Server

KEY = ObjectKey("pixel/ab/cd")
DATA = bytes(range(256)) * 400
RANGE = ByteRange(1000, 50_000)
SILENCE = 1.0
"""In place of READ_SECONDS, for tests in which the server falls silent."""
BOUND = 20.0
"""Far more than any of these waits may take, far less than a hanging one does: no measurement of speed."""


@pytest.fixture
def proxy(moto: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(moto.environment["AWS_ENDPOINT_URL_S3"]) as found:
        moto.use(monkeypatch)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", found.url)
        yield found


@pytest.fixture
def tier(proxy: FaultyProxy, moto: Server) -> S3Tier:
    return moto.tier()


@pytest.fixture
def impatient(tier: S3Tier, monkeypatch: pytest.MonkeyPatch) -> S3Tier:
    """The same tier, waiting less."""
    monkeypatch.setattr(s3_client, "READ_SECONDS", SILENCE)
    monkeypatch.setattr(s3_objects, "READ_SECONDS", SILENCE)
    monkeypatch.setattr(s3_objects, "SLOWEST_BYTES_PER_SECOND", 1 << 20)
    return S3Tier(tier.name, tier.bucket, tier.prefix.rstrip("/"))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """DATA goes in three parts."""
    monkeypatch.setattr(s3_upload, "PART_BYTES", 40_000)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < BOUND


def _put(tier: S3Tier | RetryingTier, data: bytes = DATA) -> None:
    tier.put(KEY, data, hashlib.sha256(data).hexdigest())


def _retrying(tier: S3Tier) -> RetryingTier:
    return RetryingTier(tier, RetryPolicy(0.01, 0.1, 5.0))


CALLS: dict[str, tuple[str, Callable[[S3Tier | RetryingTier], object], object]] = {
    "get": ("GET", lambda tier: tier.get(KEY), DATA),
    "get_range": (
        "GET",
        lambda tier: tier.get_range(KEY, RANGE),
        DATA[RANGE.offset : RANGE.offset + RANGE.length],
    ),
    "stat": ("HEAD", lambda tier: tier.stat(KEY).size, len(DATA)),
    "list": ("GET", lambda tier: [key for key, _ in tier.list("")], [KEY]),
    "restore": ("HEAD", lambda tier: tier.restore(KEY), None),
    "delete": ("DELETE", lambda tier: tier.delete(KEY), None),
    "put again": ("HEAD", _put, None),
    "put again, comparing": ("GET", _put, None),
}
"""By operation: the method of its first request, the call, and what it returns once it works."""
OUTAGES: dict[str, Fault] = {
    "500": answers(500, "InternalError"),
    "503": answers(503, "ServiceUnavailable"),
    "SlowDown": answers(503, "SlowDown"),
    "429": answers(429, "TooManyRequests"),
    "timed out": answers(400, "RequestTimeout"),
    "hangs up": hangs_up,
}


@pytest.mark.parametrize("operation", CALLS)
def test_an_outage_is_transient_and_a_retry_gets_over_it(
    proxy: FaultyProxy, tier: S3Tier, operation: str
) -> None:
    _put(tier)
    method, call, expected = CALLS[operation]
    for name, fault in OUTAGES.items():
        # HEAD has no body to tell a code in: only the status.
        if method == "HEAD" and name == "timed out":
            continue
        proxy.plan(method, fault)
        with pytest.raises(TransientTierError):
            call(tier)
        proxy.plan(method, fault)
        assert call(_retrying(tier)) == expected, name


@pytest.mark.parametrize("operation", ["get", "stat", "list", "put again"])
def test_silence_is_given_up_and_a_retry_gets_over_it(
    proxy: FaultyProxy, tier: S3Tier, impatient: S3Tier, operation: str
) -> None:
    _put(tier)
    method, call, expected = CALLS[operation]
    proxy.plan(method, is_silent)
    with pytest.raises(TransientTierError):
        call(impatient)
    assert call(_retrying(impatient)) == expected


@pytest.mark.parametrize("operation", ["get", "get_range", "put again, comparing"])
@pytest.mark.parametrize("fault", [breaks_off, falls_silent, trickles])
def test_a_body_that_does_not_come_whole_is_never_taken_for_the_object(
    proxy: FaultyProxy, tier: S3Tier, impatient: S3Tier, operation: str, fault: Fault
) -> None:
    _put(tier)
    method, call, expected = CALLS[operation]
    proxy.plan(method, fault)
    with pytest.raises(TransientTierError):
        call(impatient)
    assert call(_retrying(impatient)) == expected


@pytest.mark.parametrize("fault", [without("range"), shifts_the_range])
def test_another_range_than_the_one_asked_for_is_never_returned(
    proxy: FaultyProxy, tier: S3Tier, fault: Fault
) -> None:
    _put(tier)
    proxy.plan("GET", fault)
    with pytest.raises(TransientTierError, match="range"):
        tier.get_range(KEY, RANGE)
    proxy.plan("GET", fault)
    with pytest.raises(TransientTierError, match="range"):
        tier.get_range(KEY, ByteRange(len(DATA) - 10, 100))


def test_a_range_that_is_there_and_refused_is_not_the_end_of_the_object(
    proxy: FaultyProxy, tier: S3Tier
) -> None:
    _put(tier)
    proxy.plan("GET", answers(416, "InvalidRange"))
    with pytest.raises(TransientTierError, match="refused"):
        tier.get_range(KEY, RANGE)


def test_the_whole_object_in_place_of_its_beginning_and_more_is_right(
    proxy: FaultyProxy, tier: S3Tier
) -> None:
    _put(tier)
    proxy.plan("GET", without("range"))
    assert tier.get_range(KEY, ByteRange(0, 1 << 20)) == DATA


def test_wrong_bytes_of_a_whole_object_are_noticed(proxy: FaultyProxy, tier: S3Tier) -> None:
    _put(tier)
    proxy.plan("GET", flips_a_bit)
    with pytest.raises(TransientTierError, match="digest"):
        tier.get(KEY)
    assert tier.get(KEY) == DATA


def test_bytes_that_arrived_wrong_are_found_by_reading_back_and_put_again(
    proxy: FaultyProxy, tier: S3Tier
) -> None:
    proxy.plan("PUT", receives_wrong)
    with pytest.raises(TransientTierError, match="damaged"):
        _put(tier)
    with pytest.raises(ObjectNotFound):
        tier.stat(KEY)
    proxy.plan("PUT", receives_wrong)
    _put(_retrying(tier))
    assert tier.get(KEY) == DATA


def test_bytes_that_arrived_wrong_with_their_answer_lost_are_put_again(
    proxy: FaultyProxy, tier: S3Tier
) -> None:
    def fault(exchange: Exchange) -> None:
        receives_wrong(exchange)
        exchange.done = True

    proxy.plan("PUT", fault)
    _put(_retrying(tier))
    assert tier.get(KEY) == DATA


def test_one_wrong_reading_after_a_put_destroys_nothing(proxy: FaultyProxy, tier: S3Tier) -> None:
    proxy.plan("GET", flips_a_bit)
    _put(tier)
    assert [exchange.method for exchange in proxy.seen].count("DELETE") == 0
    assert tier.get(KEY) == DATA


def test_a_checksum_computed_otherwise_by_the_store_is_noticed(proxy: FaultyProxy, tier: S3Tier) -> None:
    def fault(exchange: Exchange) -> None:
        exchange.forward()
        exchange.answer_headers["x-amz-checksum-sha256"] = "AAAA"

    proxy.plan("PUT", fault)
    with pytest.raises(TransientTierError, match="other bytes"):
        _put(tier)


@pytest.mark.parametrize("fault", [pretends, loses_the_answer, hangs_up, answers(409, "OperationAborted")])
def test_a_put_that_was_not_done_or_whose_answer_was_lost_is_made_good(
    proxy: FaultyProxy, tier: S3Tier, fault: Fault
) -> None:
    proxy.plan("PUT", fault)
    with pytest.raises(TierError):
        _put(tier)
    _put(_retrying(tier))
    assert tier.get(KEY) == DATA


def test_conditions_that_are_ignored_are_not_relied_on(proxy: FaultyProxy, tier: S3Tier) -> None:
    proxy.always("PUT", without("if-none-match"))
    _put(tier)
    with pytest.raises(ObjectExists):
        _put(tier, b"other")
    assert tier.get(KEY) == DATA


def test_a_store_that_knows_no_conditions_is_asked_without(proxy: FaultyProxy, tier: S3Tier) -> None:
    proxy.plan("PUT", answers(501, "NotImplemented"))
    _put(tier)
    assert tier.get(KEY) == DATA
    puts = [exchange for exchange in proxy.seen if exchange.method == "PUT"]
    assert ["If-None-Match" in exchange.headers for exchange in puts] == [True, False]


def test_an_object_that_came_in_between_is_compared(proxy: FaultyProxy, tier: S3Tier) -> None:
    _put(tier)
    proxy.plan("HEAD", answers(404, "NoSuchKey"))
    _put(tier)
    proxy.plan("HEAD", answers(404, "NoSuchKey"))
    with pytest.raises(ObjectExists):
        _put(tier, b"other")
    assert tier.get(KEY) == DATA


def test_a_delete_that_was_not_done_is_noticed_and_repeated(proxy: FaultyProxy, tier: S3Tier) -> None:
    _put(tier)
    proxy.plan("DELETE", pretends)
    with pytest.raises(TransientTierError, match="still there"):
        tier.delete(KEY)
    proxy.plan("DELETE", pretends)
    _retrying(tier).delete(KEY)
    with pytest.raises(ObjectNotFound):
        tier.stat(KEY)


@pytest.mark.parametrize("operation", ["list", "put again, comparing", "get", "get_range", "stat"])
def test_an_answer_of_something_in_between_is_not_believed(
    proxy: FaultyProxy, tier: S3Tier, operation: str
) -> None:
    _put(tier)
    method, call, _ = CALLS[operation]
    proxy.plan(method, talks_html)
    with pytest.raises(TransientTierError):
        call(tier)


REFUSALS: dict[str, tuple[Fault, type[TierError], str]] = {
    "expired": (answers(400, "ExpiredToken"), TierError, "have expired"),
    "wrong key": (answers(403, "InvalidAccessKeyId"), TierError, "credentials are wrong"),
    "wrong secret": (answers(403, "SignatureDoesNotMatch"), TierError, "credentials are wrong"),
    "no rights": (answers(403, "AccessDenied"), TierError, "access denied"),
    "wrong clock": (answers(403, "RequestTimeTooSkewed"), TierError, "clock"),
    "no bucket": (answers(404, "NoSuchBucket"), TierError, "no such bucket"),
    "other region": (answers(301, "PermanentRedirect"), TierError, "region"),
    "key management": (answers(400, "KMS.DisabledException"), TierError, "kms_key"),
    "quota": (answers(403, "QuotaExceeded"), TierFull, "quota"),
    "full": (answers(507, "InsufficientStorage"), TierFull, "full"),
    "cold": (answers(403, "InvalidObjectState"), ObjectCold, "cold"),
    "unknown": (answers(400, "Unheard"), TierError, "400 Unheard: as planned"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_refusals_are_told_with_what_to_do_and_not_repeated(
    proxy: FaultyProxy, tier: S3Tier, refusal: str
) -> None:
    _put(tier)
    fault, kind, text = REFUSALS[refusal]
    proxy.always("GET", fault)
    with pytest.raises(kind, match=text) as caught:
        _retrying(tier).get_range(KEY, RANGE)
    assert not isinstance(caught.value, TransientTierError | ObjectNotFound)
    assert "external" in str(caught.value)


def test_a_lock_that_the_store_does_not_keep_is_told(proxy: FaultyProxy, moto: Server) -> None:
    def forgets_locks(exchange: Exchange) -> None:
        if "retention" in exchange.path:
            pretends(exchange)
            return
        exchange.headers = {k: v for k, v in exchange.headers.items() if "object-lock" not in k.lower()}
        exchange.forward()

    proxy.always("PUT", forgets_locks)
    with pytest.raises(TierError, match="does not lock"):
        _put(moto.tier(TierOptions(object_lock_days=1)))


def test_a_refused_put_stores_nothing(proxy: FaultyProxy, tier: S3Tier) -> None:
    proxy.plan("PUT", answers(403, "QuotaExceeded"))
    with pytest.raises(TierFull):
        _put(tier)
    with pytest.raises(ObjectNotFound):
        tier.stat(KEY)


def test_a_missing_bucket_is_never_an_absent_object(proxy: FaultyProxy, tier: S3Tier) -> None:
    gone = S3Tier("external", "there-is-none", "x")
    for call in (
        lambda: gone.stat(KEY),
        lambda: gone.get(KEY),
        lambda: gone.get_range(KEY, RANGE),
        lambda: gone.delete(KEY),
        lambda: list(gone.list("")),
        lambda: gone.put(KEY, DATA, hashlib.sha256(DATA).hexdigest()),
        lambda: gone.restore(KEY),
        lambda: gone.open_local(KEY),
    ):
        with pytest.raises(TierError, match="no such bucket") as caught:
            call()
        assert not isinstance(caught.value, ObjectNotFound)


def test_a_listing_in_disorder_or_broken_off_is_noticed(proxy: FaultyProxy, tier: S3Tier) -> None:
    _put(tier)

    def broken(exchange: Exchange) -> None:
        exchange.forward()
        exchange.answer = exchange.answer.replace(b"<IsTruncated>false", b"<IsTruncated>true")
        exchange.answer_headers["Content-Length"] = str(len(exchange.answer))

    proxy.plan("GET", broken)
    with pytest.raises(TransientTierError, match="breaks off"):
        list(tier.list(""))


def test_nobody_at_the_address_is_given_up_in_bounded_time(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto.use(monkeypatch)
    tier = moto.tier(TierOptions(endpoint="http://127.0.0.1:1"))
    retrying = RetryingTier(tier, RetryPolicy(0.01, 0.1, 0.5))
    with pytest.raises(TransientTierError, match="no answer"):
        retrying.get(KEY)
    with pytest.raises(TransientTierError, match="no answer"):
        _put(retrying)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    "method, number",
    [("POST", 0), ("PUT", 0), ("PUT", 2), ("POST", 1)],
    ids=["begin", "first", "last", "end"],
)
def test_an_upload_in_parts_survives_a_fault_of_each_of_its_requests(
    proxy: FaultyProxy, tier: S3Tier, method: str, number: int
) -> None:
    for fault in (answers(503, "SlowDown"), hangs_up, loses_the_answer, receives_wrong):
        if method == "POST" and fault is receives_wrong:
            continue
        proxy.plan(method, *[passes_on] * number, fault)
        _put(_retrying(tier))
        assert tier.get(KEY) == DATA
        # A request whose answer is lost leaves an upload that nobody knows of: it is what this is for.
        left = tier.discard_temporaries(0)
        assert left == (1 if (method, number, fault) == ("POST", 0, loses_the_answer) else 0)
        tier.delete(KEY)


@pytest.mark.parametrize("fault", [breaks_off, hangs_up, answers(503, "SlowDown")])
def test_a_large_object_is_read_back_by_ranges_each_of_which_is_tried_again(
    proxy: FaultyProxy, tier: S3Tier, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(s3_objects, "PIECE_BYTES", 40_000)
    proxy.plan("GET", passes_on, fault)
    _put(tier)
    ranges = [exchange.headers.get("Range") for exchange in proxy.seen if exchange.method == "GET"]
    assert ranges == [
        "bytes=0-39999",
        "bytes=40000-79999",
        "bytes=40000-79999",
        "bytes=80000-119999",
    ]
    proxy.always("GET", flips_a_bit)
    with pytest.raises(TransientTierError, match="damaged"):
        _put(tier)


@pytest.mark.usefixtures("small_parts")
def test_an_upload_in_parts_that_fails_for_good_leaves_nothing(proxy: FaultyProxy, tier: S3Tier) -> None:
    proxy.plan("PUT", answers(403, "AccessDenied"))
    with pytest.raises(TierError, match="access denied"):
        _put(tier)
    assert tier.discard_temporaries(0) == 0
    with pytest.raises(ObjectNotFound):
        tier.stat(KEY)


@pytest.mark.usefixtures("small_parts")
def test_parts_that_cannot_be_removed_do_not_hide_why_an_upload_failed(
    proxy: FaultyProxy, tier: S3Tier, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.plan("PUT", answers(403, "AccessDenied"))
    proxy.plan("DELETE", answers(500, "InternalError"))
    with pytest.raises(TierError, match="access denied"):
        _put(tier)
    assert "left over" in caplog.text
    assert tier.discard_temporaries(0) == 1
