"""What peers send arrives as it is; what they must not send ends their association and nothing else."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from pydicom._uid_dict import UID_dictionary
from pynetdicom import AE

from dicomfs.errors import UsageError
from dicomfs.network.model import Answer, NodeSettings, Peer, Status, StoreRequest
from dicomfs.network.node import MAX_PDU_BYTES, Node
from tests import samples
from tests.peers import (
    VERIFICATION,
    Aborted,
    Modality,
    Rejected,
    command,
    fragment,
    pdu,
    request,
    store_request,
)

PRIVATE = "1.2.826.0.1.3680043.99.1"
JPEG_2000, HTJ2K, H264, DEFLATED_FRAMES = (
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.102",
    "1.2.840.10008.1.2.8.1",
)
SYNTAXES = [
    samples.IMPLICIT,
    samples.EXPLICIT,
    samples.BIG_ENDIAN,
    samples.DEFLATED,
    samples.JPEG_BASELINE,
    JPEG_2000,
    HTJ2K,
    H264,
    DEFLATED_FRAMES,
    PRIVATE,
]
SOME = random.Random(5).randbytes(100_001)
SOON = 20.0


@dataclass
class FakeStore:
    """Keeps a data set in memory."""

    service: FakeService
    request: StoreRequest
    data: bytearray = field(default_factory=bytearray)
    abandoned: bool = False

    def write(self, data: memoryview) -> None:
        self.data += data
        self.service.writing.set()

    def finish(self) -> Answer:
        self.service.finishing.set()
        assert self.service.may_finish.wait(SOON)
        self.service.stored.append((self.request, bytes(self.data)))
        return self.service.answer

    def abandon(self) -> None:
        self.abandoned = True


@dataclass
class FakeService:
    """Takes everything, unless told otherwise."""

    admits: bool = True
    answer: Answer = field(default_factory=lambda: Answer(Status.SUCCESS))
    stored: list[tuple[StoreRequest, bytes]] = field(default_factory=list)
    begun: list[FakeStore] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    writing: threading.Event = field(default_factory=threading.Event)
    finishing: threading.Event = field(default_factory=threading.Event)
    may_finish: threading.Event = field(default_factory=threading.Event)
    ended_one: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_finish.set()

    def opened(self, peer: Peer) -> FakeSession:
        self.peers.append(peer)
        return FakeSession(self, self.admits)


@dataclass
class FakeSession:
    """One association."""

    service: FakeService
    admitted: bool

    def begin(self, request: StoreRequest) -> FakeStore:
        store = FakeStore(self.service, request)
        self.service.begun.append(store)
        return store

    def ended(self, how: str) -> None:
        self.service.ends.append(how)
        self.service.ended_one.set()


Start = Callable[..., int]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    running: list[Node] = []
    yield running
    for node in running:
        node.stop(0)


@pytest.fixture
def start(service: FakeService, nodes: list[Node]) -> Start:
    def start_node(**settings: object) -> int:
        node = Node(NodeSettings("ARCHIVE", 0, "127.0.0.1", **settings), service)  # type: ignore[arg-type]
        node.start()
        nodes.append(node)
        return node.port

    return start_node


def accepted_again(port: int) -> None:
    """Associate once the connections that ended are no longer counted."""
    deadline = time.monotonic() + SOON
    while True:
        try:
            with Modality(port) as peer:
                peer.release()
                return
        except Aborted:
            assert time.monotonic() < deadline, "connections that ended are still counted"


def test_an_echo_is_answered(start: Start) -> None:
    with Modality(start(), [(VERIFICATION, [samples.IMPLICIT])]) as peer:
        assert peer.echo() == (0, "", 7)
        peer.release()


def test_a_client_of_pynetdicom_agrees(start: Start, service: FakeService) -> None:
    entity = AE("CLIENT")
    entity.add_requested_context(VERIFICATION)
    association = entity.associate("127.0.0.1", start(), ae_title="ARCHIVE")
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()
    assert service.ended_one.wait(SOON)
    assert service.ends == ["released"]
    assert service.peers[0] == Peer("CLIENT", "ARCHIVE", "127.0.0.1")


@pytest.mark.parametrize("sop_class", [samples.CT_IMAGE, PRIVATE, "1.2.840.10008.5.1.4.1.1.999"])
def test_every_transfer_syntax_is_taken_as_it_comes(
    start: Start, service: FakeService, sop_class: str
) -> None:
    with Modality(start(), [(sop_class, [syntax]) for syntax in SYNTAXES]) as peer:
        assert peer.accepted == {2 * n + 1: (0, syntax) for n, syntax in enumerate(SYNTAXES)}
        for number in range(len(SYNTAXES)):
            answer = peer.store(SOME[number:], sop_class=sop_class, context=2 * number + 1)
            assert answer.status == 0
        peer.release()
    assert [(asked.transfer_syntax_uid, data) for asked, data in service.stored] == [
        (syntax, SOME[number:]) for number, syntax in enumerate(SYNTAXES)
    ]
    assert {asked.sop_class_uid for asked, _ in service.stored} == {sop_class}


STORAGE = [
    uid
    for uid, (name, kind, *_) in UID_dictionary.items()
    if kind == "SOP Class" and name.replace(" (Retired)", "").endswith("Storage") and "Directory" not in name
]


def test_every_storage_sop_class_of_the_standard_is_accepted(start: Start, service: FakeService) -> None:
    assert len(STORAGE) > 150
    port = start()
    for first in range(0, len(STORAGE), 60):
        part = STORAGE[first : first + 60]
        contexts = [(uid, [syntax]) for uid in part for syntax in (PRIVATE, samples.EXPLICIT)]
        with Modality(port, contexts) as peer:
            assert peer.accepted == {2 * n + 1: (0, syntax) for n, (_, (syntax,)) in enumerate(contexts)}
            for number, uid in enumerate(part):
                assert peer.store(b"data", sop_class=uid, context=4 * number + 1).status == 0
            peer.release()
    assert [asked.sop_class_uid for asked, _ in service.stored] == STORAGE


def test_of_several_transfer_syntaxes_the_first_is_accepted(start: Start) -> None:
    with Modality(start(), [(samples.CT_IMAGE, [HTJ2K, samples.EXPLICIT])]) as peer:
        assert peer.accepted == {1: (0, HTJ2K)}


def test_services_that_are_not_served_are_not_accepted(start: Start) -> None:
    find, echo = "1.2.840.10008.5.1.4.1.2.2.1", VERIFICATION
    with Modality(start(), [(find, [samples.IMPLICIT]), (echo, [samples.IMPLICIT])]) as peer:
        assert {number: result for number, (result, _) in peer.accepted.items()} == {1: 3, 3: 0}


@pytest.mark.parametrize("piece", [1, 100, 16384, MAX_PDU_BYTES - 6])
def test_fragments_of_any_length_make_the_same_data_set(
    start: Start, service: FakeService, piece: int
) -> None:
    data = SOME[:300] if piece == 1 else SOME * 3
    with Modality(start()) as peer:
        assert peer.store(data, piece=piece).status == 0
    assert service.stored[0][1] == data


def test_a_command_and_its_data_set_may_share_a_pdu(start: Start, service: FakeService) -> None:
    asked = store_request(samples.CT_IMAGE, "1.2")
    with Modality(start()) as peer:
        parts = [
            fragment(1, 1, asked[:20]),
            fragment(1, 3, asked[20:]),
            fragment(1, 0, b"abc"),
            fragment(1, 2, b"d"),
        ]
        peer.socket.sendall(pdu(4, b"".join(parts)))
        assert peer.response().status == 0
    assert [data for _, data in service.stored] == [b"abcd"]


def test_a_failure_is_answered_with_its_status_and_comment(start: Start, service: FakeService) -> None:
    service.answer = Answer(Status.OUT_OF_RESOURCES, "no space left " * 10)
    with Modality(start()) as peer:
        answer = peer.store(b"x")
        assert (answer.status, answer.message_id) == (0xA700, 1)
        assert answer.comment == ("no space left " * 10)[:64].strip()
        service.answer = Answer(Status.SUCCESS)
        assert peer.store(b"y").status == 0


def test_who_is_not_admitted_is_told_to_try_again(start: Start, service: FakeService) -> None:
    service.admits = False
    with pytest.raises(Rejected, match=r"\(2, 3, 2\)"):
        Modality(start())
    assert service.ended_one.wait(SOON)
    assert service.ends == ["rejected"]


def test_another_called_title_is_rejected_only_when_asked(start: Start) -> None:
    with Modality(start(), called="OTHER") as peer:
        peer.release()
    port = start(require_called=True)
    with pytest.raises(Rejected, match=r"\(1, 1, 7\)"):
        Modality(port, called="OTHER")
    with Modality(port, called="ARCHIVE") as peer:
        peer.release()


def test_connections_beyond_the_bound_are_closed_and_others_go_on(start: Start) -> None:
    port = start(max_associations=1)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Modality(port, [(VERIFICATION, [samples.IMPLICIT])]))
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), SOON)) for _ in range(40)]
        assert idle[-1].recv(1) == b""
        assert first.echo().status == 0
    accepted_again(port)


def test_many_associations_store_at_once(start: Start, service: FakeService) -> None:
    port = start(max_associations=8)
    failed = []

    def send(number: int) -> None:
        with Modality(port, calling=f"M{number}") as peer:
            for count in range(10):
                if peer.store(bytes([number]) * 20_000, instance=f"1.2.{number}.{count}").status:
                    failed.append(number)
            peer.release()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(service.stored) == 80
    for asked, data in service.stored:
        assert data == bytes([int(asked.peer.calling[1:])]) * 20_000


def test_an_association_that_ends_in_the_middle_abandons_its_store(
    start: Start, service: FakeService
) -> None:
    with Modality(start()) as peer:
        peer.begin(SOME, whole=False)
        assert service.writing.wait(SOON)
    assert service.ended_one.wait(SOON)
    assert service.begun[0].abandoned
    assert service.stored == []


def drain(peer: Modality) -> None:
    """Read until the association ends."""
    while True:
        peer.receive()


COMMAND = store_request(samples.CT_IMAGE, "1.2")
NO_INSTANCE = command(
    [(0x0002, "UI", "1.2"), (0x0100, "US", 1), (0x0110, "US", 1), (0x0700, "US", 0), (0x0800, "US", 1)]
)
NO_DATA_SET = command(
    [
        (0x0002, "UI", "1.2"),
        (0x0100, "US", 1),
        (0x0110, "US", 1),
        (0x0800, "US", 0x0101),
        (0x1000, "UI", "1.2"),
    ]
)
FIND = command(
    [(0x0002, "UI", "1.2"), (0x0100, "US", 0x20), (0x0110, "US", 1), (0x0700, "US", 0), (0x0800, "US", 1)]
)
RESPONSE = command([(0x0002, "UI", "1.2"), (0x0100, "US", 0x8001), (0x0120, "US", 1), (0x0800, "US", 0x0101)])
HOSTILE = {
    "a PDU of 4 GiB": struct.pack(">BxL", 4, 0xFFFFFFFF),
    "a PDU beyond what was announced": pdu(4, fragment(1, 2, bytes(2 << 20))),
    "a PDU of no type": pdu(9, b"????"),
    "a second request": request([(samples.CT_IMAGE, [samples.EXPLICIT])], b"ARCHIVE", b"X"),
    "an empty P-DATA with rest": pdu(4, b"\0"),
    "a fragment without header": pdu(4, struct.pack(">LB", 1, 1)),
    "a fragment longer than its PDU": pdu(4, struct.pack(">LBB", 1000, 1, 3)),
    "a fragment of length zero": pdu(4, struct.pack(">L", 0)),
    "a data set without a command": pdu(4, fragment(1, 2, b"x")),
    "a context that was not accepted": pdu(4, fragment(77, 3, COMMAND)),
    "another context within a data set": pdu(4, fragment(1, 3, COMMAND)) + pdu(4, fragment(3, 2, b"x")),
    "a command within a data set": pdu(4, fragment(1, 3, COMMAND)) + pdu(4, fragment(1, 3, COMMAND)),
    "a command without end": b"".join(pdu(4, fragment(1, 1, bytes(60_000))) for _ in range(3)),
    "a command of noise": pdu(4, fragment(1, 3, SOME[:500])),
    "an empty command": pdu(4, fragment(1, 3, b"")),
    "a command of no kind": pdu(4, fragment(1, 3, command([(0x0100, "US", 0x7777), (0x0800, "US", 0x0101)]))),
    "a store without instance": pdu(4, fragment(1, 3, NO_INSTANCE)),
    "a store with a long UID": pdu(4, fragment(1, 3, store_request(samples.CT_IMAGE, "1." * 40 + "1"))),
    "a store without data set": pdu(4, fragment(1, 3, NO_DATA_SET)),
    "a query": pdu(4, fragment(1, 3, FIND)),
    "a response": pdu(4, fragment(1, 3, RESPONSE)),
    "stores that wait for no answer": (pdu(4, fragment(1, 3, COMMAND)) + pdu(4, fragment(1, 2, b"x"))) * 100,
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
def test_what_a_peer_must_not_send_ends_its_association_only(
    start: Start, service: FakeService, sent: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    port = start()
    service.may_finish.clear()
    with Modality(port, [(VERIFICATION, [samples.IMPLICIT])]) as other:
        with Modality(port) as peer:
            with contextlib.suppress(OSError):
                peer.socket.sendall(sent)
            service.may_finish.set()
            with pytest.raises(Aborted):
                drain(peer)
        assert service.ended_one.wait(SOON)
        assert other.echo().status == 0
    assert "Traceback" not in capfd.readouterr().err


CHANGED = request([(samples.CT_IMAGE, [samples.EXPLICIT])], b"ARCHIVE", b"MODALITY")


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_association_request_ends_its_connection_only(
    start: Start, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    chance = random.Random(seed)
    data = bytearray(CHANGED)
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(6, len(data))] = chance.choice([0, 0xFF, chance.randrange(256)])
    port = start()
    with socket.create_connection(("127.0.0.1", port), SOON) as peer, contextlib.suppress(OSError):
        peer.sendall(data)
        peer.recv(4096)
    with Modality(port, [(VERIFICATION, [samples.IMPLICIT])]) as other:
        assert other.echo().status == 0
    assert "MODALITY" not in "".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "sent", [b"", b"\x04\0\0", CHANGED[:50]], ids=["nothing", "half a head", "half a request"]
)
def test_a_peer_that_stops_in_a_pdu_is_cut_off_in_time(
    start: Start, sent: bytes, service: FakeService
) -> None:
    with socket.create_connection(("127.0.0.1", start(timeout_seconds=0.3)), SOON) as peer:
        peer.sendall(sent)
        while peer.recv(100):
            pass
    assert service.peers == []


def test_a_peer_that_falls_silent_is_aborted(start: Start, service: FakeService) -> None:
    with Modality(start(timeout_seconds=0.3)) as peer:
        peer.begin(SOME, whole=False)
        with pytest.raises(Aborted):
            peer.receive()
    assert service.ended_one.wait(SOON)
    assert service.ends == ["aborted"]
    assert service.begun[0].abandoned


def test_looking_whether_the_port_is_open_leaves_nothing_behind(
    start: Start, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    port = start(max_associations=1)
    before = threading.active_count()
    for _ in range(100):
        socket.create_connection(("127.0.0.1", port), SOON).close()
    accepted_again(port)
    assert service.ended_one.wait(SOON)
    deadline = time.monotonic() + SOON
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


def test_stopping_lets_a_running_store_end_and_be_answered(
    start: Start, service: FakeService, nodes: list[Node]
) -> None:
    port = start()
    service.may_finish.clear()
    with Modality(port) as peer, Modality(port) as idle:
        peer.begin(b"data")
        assert service.finishing.wait(SOON)
        stopper = threading.Thread(target=nodes.pop().stop, args=(SOON,))
        stopper.start()
        with pytest.raises(Aborted):
            idle.receive()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), SOON)
        service.may_finish.set()
        assert peer.response().status == 0
        with pytest.raises(Aborted):
            peer.receive()
        stopper.join()


def test_a_title_that_is_none_and_an_address_that_is_taken_are_usage_errors(
    start: Start, service: FakeService
) -> None:
    with pytest.raises(UsageError, match="AE title"):
        Node(NodeSettings("SEVENTEEN CHARACT", 0, "127.0.0.1"), service)
    with pytest.raises(UsageError, match="AE title"):
        Node(NodeSettings("   ", 0, "127.0.0.1"), service)
    with pytest.raises(UsageError, match="cannot listen"):
        Node(NodeSettings("ARCHIVE", start(), "127.0.0.1"), service)
    with pytest.raises(UsageError, match="cannot listen"):
        Node(NodeSettings("ARCHIVE", 0, "no address"), service)
