"""What the network and those behind it say to each other: peers, requests, answers, the service's protocol.

Owns no behaviour and no pynetdicom type, so that a service can be written and tested without a network.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other side of an association."""

    calling: str
    called: str
    address: str


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What a C-STORE request says of its data set; UIDs as they came, at most 64 characters."""

    peer: Peer
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class Status(enum.IntEnum):
    """Status of a C-STORE response (PS3.4 B.2.3, PS3.7 C)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a store is answered with; the comment is seen by the peer."""

    status: Status
    comment: str = ""


class Store(Protocol):
    """Takes one data set; its methods never raise."""

    def write(self, data: memoryview) -> None:
        """The next bytes of the data set."""

    def finish(self) -> Answer:
        """The data set is complete; success means that it is durable."""

    def abandon(self) -> None:
        """The association ended before the data set did."""


class Session(Protocol):
    """What stands behind one association; its methods never raise."""

    @property
    def admitted(self) -> bool:
        """Whether the association may begin; if not, the peer is told to try again later."""

    def begin(self, request: StoreRequest) -> Store:
        """A data set begins to arrive."""

    def ended(self, how: str) -> None:
        """The association ended, admitted or not."""


class Service(Protocol):
    """What stands behind the network; its methods never raise."""

    def opened(self, peer: Peer) -> Session:
        """An association is asked for."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node is called, where it listens and what it bounds."""

    ae_title: str
    port: int
    """0 takes a free one."""
    address: str = "0.0.0.0"  # noqa: S104  modalities are other machines (docs/operations.md)
    require_called: bool = False
    """Reject who calls another AE title."""
    max_associations: int = 16
    timeout_seconds: float = 60.0
    """Silence after which an association is aborted; also the most that one PDU may take."""
