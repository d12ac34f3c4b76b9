"""Make the golden objects of this format version in tests/compat/v<major>.<minor>/.

Run once for each version, when its format is final; refuses to touch a folder that exists.  Golden objects
are never made again: tests/compat reads those of all versions for ever.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from dicomfs.format.version import MAJOR, MINOR  # noqa: E402 - the checkout has to be on the path first
from dicomfs.model import PackKind  # noqa: E402
from tests.compat.contents import contents_of  # noqa: E402
from tests.format_samples import (  # noqa: E402
    codestream_sample,
    dicom_header_sample,
    header_sample,
    journal_sample,
    noted_sample,
    opaque_sample,
    pixel_sample,
)


def golden_objects() -> dict[str, bytes]:
    """The objects to keep, by file name."""
    return {
        "pixel.pack": pixel_sample().pack,
        "burned.pack": pixel_sample(PackKind.BURNED).pack,
        "noted.pack": noted_sample()[0].pack,
        "opaque.pack": opaque_sample()[0],
        "header.pack": header_sample((3, 40), (1, 10), (0, 0), (5, 100, 20_000))[0],
        "header-columns.pack": dicom_header_sample(),
        "header-codestreams.pack": codestream_sample(),
        "journal.object": journal_sample(),
    }


def main() -> int:
    """Write the objects and contents.json: SHA-256 of what each of them decodes to."""
    folder = CHECKOUT / "tests" / "compat" / f"v{MAJOR}.{MINOR}"
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        print(f"{folder} exists: golden objects are never made again", file=sys.stderr)
        return 1
    contents = {}
    for name, data in golden_objects().items():
        (folder / name).write_bytes(data)
        contents[name] = {"object": hashlib.sha256(data).hexdigest(), "contents": contents_of(name, data)}
    (folder / "contents.json").write_text(json.dumps(contents, indent=1) + "\n")
    print(f"wrote {len(contents)} objects to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
