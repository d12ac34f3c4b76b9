"""Make the streams of the kernel that all later versions have to decode, in tests/compat/streams/.

Writes only what is missing: a stream that exists is never made again.  The version in the names counts
changes of the streams' encoders worth a new set.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from dicomfs.codec.base import Settings  # noqa: E402 - the checkout has to be on the path first
from tests.compat.kernel_contents import CONTENTS  # noqa: E402
from tests.compat.test_kernel import KINDS, STREAMS, encode  # noqa: E402

VERSION = 1
EFFORT = 7


def main() -> None:
    """Write the streams of this version that are not there."""
    STREAMS.mkdir(exist_ok=True)
    for kind, level in KINDS:
        for title, content in CONTENTS.items():
            path = STREAMS / f"{kind}-{level}-{title}-{VERSION}.stream"
            if not path.exists():
                path.write_bytes(encode(kind, content, Settings(EFFORT, level, content.references)))
                sys.stdout.write(f"{path.relative_to(CHECKOUT)}\n")


if __name__ == "__main__":
    main()
