"""Questions about patients, studies and series, each a short transaction of its own."""

from __future__ import annotations

from dicomfs.index import nodes
from dicomfs.index.pair import IndexPair
from dicomfs.index.spool import FEED as SPOOL_FEED
from dicomfs.index.writer import CATALOG_FEED
from dicomfs.model import Level, PatientNode, SeriesNode, StudyNode


class NodeQueries(IndexPair):
    """The part of `Catalog` that answers about folders."""

    def patients(self) -> list[PatientNode]:
        """All patients, by case-folded folder name."""
        with self._catalog.read() as txn:
            found = nodes.list_nodes(txn, Level.PATIENT, 0)
        return [node for node in found if isinstance(node, PatientNode)]

    def studies(self, patient: int) -> list[StudyNode]:
        """The studies of a patient; empty for an unknown one."""
        with self._catalog.read() as txn:
            found = nodes.list_nodes(txn, Level.STUDY, patient)
        return [node for node in found if isinstance(node, StudyNode)]

    def series_of(self, study: int) -> list[SeriesNode]:
        """The series of a study; empty for an unknown one."""
        with self._catalog.read() as txn:
            found = nodes.list_nodes(txn, Level.SERIES, study)
        return [node for node in found if isinstance(node, SeriesNode)]

    def patient(self, number: int) -> PatientNode:
        """A patient.  Raises NotFoundError."""
        node = self._node(Level.PATIENT, number)
        assert isinstance(node, PatientNode)
        return node

    def study(self, number: int) -> StudyNode:
        """A study.  Raises NotFoundError."""
        node = self._node(Level.STUDY, number)
        assert isinstance(node, StudyNode)
        return node

    def series(self, number: int) -> SeriesNode:
        """A series.  Raises NotFoundError."""
        node = self._node(Level.SERIES, number)
        assert isinstance(node, SeriesNode)
        return node

    def all_series(self) -> list[int]:
        """Numbers of all series."""
        with self._catalog.read() as txn:
            return nodes.list_numbers(txn, Level.SERIES)

    def child(self, level: Level, parent: int, folder: str) -> int | None:
        """Number of the node of ``level`` under ``parent`` (0 for patients) with exactly this folder name."""
        with self._catalog.read() as txn:
            return nodes.child_number(txn, level, parent, folder)

    def folder_taken(self, level: Level, parent: int, folder: str) -> bool:
        """Whether a folder name is given out under ``parent``, compared case-folded."""
        with self._catalog.read() as txn:
            return nodes.folder_taken(txn, level, parent, folder)

    def find_patient(self, issuer: str, patient_id: str, name: str) -> PatientNode | None:
        """The patient of an identity."""
        with self._catalog.read() as txn:
            found = nodes.find_node(txn, Level.PATIENT, 0, issuer, patient_id, name)
        return found if isinstance(found, PatientNode) else None

    def find_study(self, patient: int, uid: str) -> StudyNode | None:
        """The study of a patient by its UID."""
        with self._catalog.read() as txn:
            found = nodes.find_node(txn, Level.STUDY, patient, uid)
        return found if isinstance(found, StudyNode) else None

    def find_series(self, study: int, uid: str) -> SeriesNode | None:
        """The series of a study by its UID."""
        with self._catalog.read() as txn:
            found = nodes.find_node(txn, Level.SERIES, study, uid)
        return found if isinstance(found, SeriesNode) else None

    def next_number(self, level: Level) -> int:
        """The first number of a level never given out: its high-water mark."""
        with self._catalog.read() as txn:
            return nodes.next_number(txn, level)

    def changed_ns(self, level: int, number: int) -> int:
        """Time (ns) of the last commit that changed a folder's entries; level and number 0 for the root.

        0 where nothing ever changed.
        """
        with self._spool.read() as spool, self._catalog.read() as catalog:
            return max(
                SPOOL_FEED.changed_ns(spool, level, number), CATALOG_FEED.changed_ns(catalog, level, number)
            )

    def _node(self, level: Level, number: int) -> nodes.Node:
        with self._catalog.read() as txn:
            return nodes.get_node(txn, level, number)
