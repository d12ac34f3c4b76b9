"""Encryption of what leaves the house: docs/encryption.md and nothing else.

Owns archive keys and where they come from, keyrings, names and segments as bytes.  Does not know where
objects lie: `dicomfs.tiers.sealed` puts these together around a tier.  The library `cryptography` is imported
here only.
"""
