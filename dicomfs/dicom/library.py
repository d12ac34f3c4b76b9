"""The door to pydicom's reader, for the few cases where structure below the top level matters.

Owns reading a data set from bytes, quietly and with every failure as None.  Does not own what is asked of it.
pydicom never writes here, and nothing that it parsed is ever stored.
"""

from __future__ import annotations

import io
import logging
import warnings

import pydicom
from pydicom import config
from pydicom.dataset import Dataset

from dicomfs.dicom.part10 import Buffer, Scan

MAX_HEADER = 64 * 1024 * 1024
"""Header bytes beyond which a data set is not parsed."""

_log = logging.getLogger(__name__)

# pydicom reports oddities of the files as warnings and log lines, which may quote patient attributes.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").addHandler(logging.NullHandler())
logging.getLogger("pydicom").propagate = False
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")


def read_data_set(data: Buffer, scan: Scan, tags: list[int] | None = None) -> Dataset | None:
    """The data set before the pixel value, or None where it is too large or cannot be parsed.

    ``tags`` limits it to these.  Never raises: pydicom fails on odd files with many kinds of exceptions.
    """
    end = scan.size if scan.pixel is None else scan.pixel.header_offset
    if end > MAX_HEADER:
        return None
    with memoryview(data) as view:
        content = bytes(view[:end])
    try:
        return pydicom.dcmread(io.BytesIO(content), force=True, specific_tags=list(tags) if tags else None)
    except Exception as error:  # whatever it is, the caller has a way without
        _log.debug("pydicom cannot parse a data set: %s", type(error).__name__)
        return None
