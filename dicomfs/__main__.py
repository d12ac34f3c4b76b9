"""``python -m dicomfs``: the same as the ``dicomfs`` command."""

from __future__ import annotations

import sys

from dicomfs.cli import main

sys.exit(main())
