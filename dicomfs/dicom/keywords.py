"""Values of single attributes by their DICOM keyword, as text for a person.

Reads the beginning of a Part 10 file with pydicom; changes nothing.  Values come from hostile files, so
whatever pydicom raises means "no value".
"""

from __future__ import annotations

import io
import logging

import pydicom
from pydicom.datadict import tag_for_keyword

logger = logging.getLogger(__name__)


def keyword_value(data: bytes, keyword: str) -> str | None:
    """Value of a top-level attribute of a file that begins with ``data``; None where there is none.

    Multiple values are joined by a backslash, as in PS3.5 section 6.2.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        return None
    try:
        found = pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=[tag])
        holder = found if tag in found else found.file_meta
        if tag not in holder or holder[tag].VR == "SQ":
            return None
        element = holder[tag]
        value = element.value
    except Exception as problem:
        logger.debug("attribute not read", extra={"keyword": keyword, "reason": type(problem).__name__})
        return None
    if isinstance(value, bytes):
        return value.hex()
    return "\\".join(map(str, value)) if isinstance(value, list | tuple) or element.VM > 1 else str(value)
