"""dicomfs: a filesystem over a compressed DICOM archive that gives back every file byte for byte."""

from __future__ import annotations

__version__ = "0.1.0"
