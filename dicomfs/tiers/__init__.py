"""Bytes by key: where objects are stored.

Owns the Tier contract (base), its implementations and the wrappers that add behaviour.  Does not know what
the bytes mean, nor which tier should hold what.
"""
