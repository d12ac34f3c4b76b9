"""Holds within one transaction: what may not be forgotten."""

from __future__ import annotations

from dicomfs.errors import NotFoundError
from dicomfs.index.env import ReadTxn
from dicomfs.index.keys import HELD
from dicomfs.index.nodes import get_node
from dicomfs.index.records import Hold, StoredHold, unpack_record
from dicomfs.model import INSTANCE_LEVEL, InstanceId, Level, SeriesNode, StudyNode, Subject


def list_holds(txn: ReadTxn) -> list[Hold]:
    """All holds."""
    return [_hold(key, value) for key, value in txn.scan(HELD)]


def hold_on(txn: ReadTxn, instance: InstanceId) -> Hold | None:
    """A hold that keeps an instance: on itself, or on a folder that it is in."""
    for subject in _subjects(txn, instance):
        key = HELD.pack(subject.level, subject.number, subject.position)
        value = txn.get(HELD, key)
        if value is not None:
            return _hold(key, value)
    return None


def _subjects(txn: ReadTxn, instance: InstanceId) -> list[Subject]:
    found = [
        Subject(INSTANCE_LEVEL, instance.series, instance.position),
        Subject(Level.SERIES, instance.series),
    ]
    try:
        series = get_node(txn, Level.SERIES, instance.series)
        assert isinstance(series, SeriesNode)
        study = get_node(txn, Level.STUDY, series.study)
        assert isinstance(study, StudyNode)
    except NotFoundError:
        return found
    return [*found, Subject(Level.STUDY, study.number), Subject(Level.PATIENT, study.patient)]


def _hold(key: bytes, value: bytes) -> Hold:
    level, number, position = HELD.numbers(key)
    stored = unpack_record(value, StoredHold)
    return Hold(Subject(level, number, position), stored.reason, stored.since_ns)
