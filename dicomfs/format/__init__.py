"""Bytes ↔ values: the on-disk structures of docs/format.md and nothing else.

Owns framing, packs, header packs and journal objects.  Does not know where objects lie (tiers), what band
payloads mean (codec) or what header bytes say (dicom).
"""
