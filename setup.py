"""Adds to pyproject.toml what it cannot say: the extension module that cffi describes."""

from setuptools import setup

setup(cffi_modules=["dicomfs/codec/kernel/build.py:builder"])
