"""Compressed frames read without loss of a single bit: codestream ↔ samples and a recipe.

Owns what turns the fragments of an encapsulated pixel value into something that packs well, and back into the
same bytes.  Does not know files, stacks or packs.
"""
