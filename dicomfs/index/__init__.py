"""The catalog: an LMDB index of patients, studies, series, instances, objects and the spool.

Layout: `catalog` (the facade) over `instances`, `nodes`, `writer`, `spool`, `object_writer`, `feed`;
`parts` and `columns` are the compact records, `keys` and `records` declare the tables, `pair` and `env`
open LMDB, `guards` checks before that.  `inodes` is the arithmetic of inode numbers.
"""

from dicomfs.index.catalog import Catalog
from dicomfs.index.records import (
    ROOT,
    Change,
    Counts,
    Intent,
    ObjectRecord,
    PartInfo,
    PartRef,
    PartRow,
    SpooledRecord,
)
from dicomfs.index.spool import SpoolWriter
from dicomfs.index.writer import CatalogWriter

__all__ = [
    "ROOT",
    "Catalog",
    "CatalogWriter",
    "Change",
    "Counts",
    "Intent",
    "ObjectRecord",
    "PartInfo",
    "PartRef",
    "PartRow",
    "SpoolWriter",
    "SpooledRecord",
]
