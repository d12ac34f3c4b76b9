"""Fuzzing of what reads stored bytes: header blocks, tables, codestreams with their recipes, bands.

    python -m tests.fuzz.decoders SECONDS [--seed N]

Sound inputs are damaged at random, streams of header blocks before they are compressed, too, so that what
lies behind digests and zstd is reached.  Whatever comes must be a declared error or a value, within
`MOST_SECONDS` of processor time and `MOST_MEMORY` bytes; the first input that is not ends the run, named.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple

import numpy as np

from dicomfs.codec.base import CodecId, Settings
from dicomfs.codec.bitstream.base import Method
from dicomfs.codec.bitstream.registry import (
    method_of,
    piece_recipe,
    read_checked,
    write_frame,
    write_transcoded,
)
from dicomfs.codec.bitstream.transcode import may_transcode, transcode
from dicomfs.codec.segment import decode_band, encode_band
from dicomfs.errors import CodecError, FormatError
from dicomfs.format.header import HeaderPackReader
from dicomfs.format.header_blocks import make_blocks
from dicomfs.format.header_columns import BlockStreams, assemble, pack_text, templates_of, unpack, unpack_text
from dicomfs.format.pack import PackReader
from dicomfs.format.shared_texts import pieces
from dicomfs.format.text_pack import read_text
from dicomfs.model import PixelLayout
from tests import samples
from tests.codestreams import hint, jpeg, jpeg_lossless, jpeg_ls_stream, rle, smooth
from tests.format_samples import (
    CountingReader,
    codestream_sample,
    dicom_header_sample,
    header_sample,
    shared_text_sample,
)

MOST_SECONDS = 10.0
MOST_MEMORY = 2 << 30
_GREY, _COLOUR = smooth(24, 30), smooth(20, 21, channels=3, bits=8)
_FRAMES, _SIDE = 3, 40

Target = Callable[[random.Random], None]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, moved or cut off."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(max(1, len(found)))
        way = rng.randrange(6)
        if way <= 1 and found:
            found[at % len(found)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif way == 2:
            del found[at : at + rng.randint(1, 9)]
        elif way == 3:
            found[at:at] = rng.randbytes(rng.randint(1, 9))
        elif way == 4:
            start = rng.randrange(max(1, len(found)))
            found[at:at] = found[start : start + rng.randint(1, 40)]
        else:
            del found[max(1, at) :]
    return bytes(found)


def header_blocks() -> list[Target]:
    """Payloads of blocks, and their plain streams, with templates of their own and of another block."""
    headers = [data[:-128] for data in samples.ct_series(300, 8, 8, 5)]
    blocks = [
        *make_blocks(headers),
        *make_blocks([samples.enhanced_mr(3 + n, 4, 4)[:4000] for n in range(4)]),
    ]
    base = unpack(blocks[0].payload, "fuzzed")
    text_pack, _, shared = shared_text_sample()
    protocols = [
        data[:-512] for data in samples.long_headers("Text^Patient", samples.protocol("shared", 520), 3)
    ]
    blocks += make_blocks(protocols, lambda *_: shared)

    def payload(rng: random.Random) -> None:
        block = rng.choice(blocks)
        templates = None if block.base is None else templates_of(base, "fuzzed")
        streams = unpack(damaged(block.payload, rng), "fuzzed", lambda _: shared.data)
        assemble(streams, templates, block.rows, len(block.plain), "fuzzed")

    def streams(rng: random.Random) -> None:
        block = rng.choice(blocks)
        plain = list(astuple(unpack(block.payload, "fuzzed", lambda _: shared.data)))
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.choice((0, 0, 0, 1, 2, 3))
            plain[at] = damaged(plain[at], rng)
        templates = None
        if block.base is not None:
            templates = templates_of(base, "fuzzed")
        elif rng.random() < 0.3:
            templates = templates_of(BlockStreams(*plain), "fuzzed")
        assemble(BlockStreams(*plain), templates, block.rows, len(block.plain), "fuzzed")

    def text(rng: random.Random) -> None:
        if rng.random() < 0.5:
            data = damaged(text_pack, rng)
            read_text(PackReader(CountingReader(data), len(data), "fuzzed"))
        else:
            pieces(unpack_text(damaged(stored, rng), "fuzzed"))

    stored = pack_text(shared.data)
    return [payload, streams, text]


def header_packs() -> list[Target]:
    """Whole header packs, read as the archive does."""
    packs = [dicom_header_sample(), codestream_sample(), header_sample((3, 50), (20, 60))[0]]

    def whole(rng: random.Random) -> None:
        data = damaged(rng.choice(packs), rng)
        reader = HeaderPackReader(CountingReader(data), len(data), "fuzzed")
        for number, part in enumerate(reader.parts):
            reader.part(number)
            for row in range(min(part.rows, 20)):
                reader.header(number, row)

    return [whole]


def codestreams() -> list[Target]:
    """Codestreams that are taken apart, recipes, and JPEG stored as JPEG XL."""
    streams = [
        (Method.JPEG_LOSSLESS, jpeg_lossless(_GREY, predictor=6), _GREY),
        (Method.JPEG_LOSSLESS, jpeg_lossless(_COLOUR), _COLOUR),
        (Method.JPEG_LS, jpeg_ls_stream(_GREY), _GREY),
        (Method.JPEG_LS, jpeg_ls_stream(_COLOUR, bits=8), _COLOUR),
        (Method.RLE, rle(_GREY, seed=4), _GREY),
    ]
    readings = [(method, read_checked(method, stream, hint(image))) for method, stream, image in streams]
    transcoded = transcode(jpeg(smooth(40, 48, channels=3, bits=8)))

    def reading(rng: random.Random) -> None:
        method, stream, image = rng.choice(streams)
        data = damaged(stream, rng)
        found = method_of(data, hint(image), run_length=method is Method.RLE)
        read = read_checked(found, data, hint(image))
        assert write_frame(found, read.raw, read.layout, piece_recipe(read.recipe, [])) == data

    def recipe(rng: random.Random) -> None:
        method, read = rng.choice(readings)
        whole = piece_recipe(read.recipe, [(0, b"12345678")])
        write_frame(method, read.raw, read.layout, damaged(whole, rng))

    def jpeg_xl(rng: random.Random) -> None:
        stored, tail = transcoded
        if rng.random() < 0.5:
            write_transcoded(16, damaged(stored, rng), piece_recipe(tail, []), 100_000)
        else:
            data = damaged(jpeg(smooth(40, 48, channels=3, bits=8)), rng)
            if may_transcode(data):
                made, rest = transcode(data)
                assert write_transcoded(16, made, piece_recipe(rest, []), len(data)) == data

    return [reading, recipe, jpeg_xl]


def bands() -> list[Target]:
    """Bands of several components, of every codec that has them, and of wide words."""
    made = []
    for bits, floating in ((32, True), (32, False), (64, True)):
        layout = PixelLayout(_SIDE, _SIDE, 1, bits, bits, bits - 1, signed=True, is_float=floating)
        values = np.stack([smooth(_SIDE, _SIDE, seed=seed) for seed in range(_FRAMES)]) * 7.0 - 900
        words = (values / 3).astype(f"<f{bits // 8}") if floating else values.astype("<i4")
        raw = words.reshape(_FRAMES, -1).view(np.uint8)
        made += [
            (layout, one, encode_band(raw, layout, _SIDE, one, Settings()))
            for one in (CodecId.FAST, CodecId.DENSE)
        ]
    for count in (3, 4):
        layout = PixelLayout(_SIDE, _SIDE, count, 8, 8, 7, signed=False)
        raw = np.stack([smooth(_SIDE, _SIDE * count, bits=8, seed=seed).ravel() for seed in range(_FRAMES)])
        made += [
            (layout, one, encode_band(raw, layout, _SIDE, one, Settings()))
            for one in (CodecId.FAST, CodecId.DENSE, CodecId.HEVC)
        ]

    def components(rng: random.Random) -> None:
        layout, codec, payload = rng.choice(made)
        found = decode_band(damaged(payload, rng), layout, _SIDE, _FRAMES, codec)
        assert all(len(frame) == layout.frame_bytes for frame in found.values())

    return [components]


def run(seconds: float, seed: int) -> Counter[str]:
    """Fuzz for so long; how often each target was executed, and how often it refused.

    Raises whatever a decoder should not have.
    """
    targets: Sequence[Target] = [*header_blocks(), *header_packs(), *codestreams(), *bands()]
    found: Counter[str] = Counter()
    deadline, number = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        target = targets[number % len(targets)]
        rng = random.Random(f"{seed}/{number}")
        started = time.process_time()
        try:
            target(rng)
        except (CodecError, FormatError):
            found[f"{target.__name__} refused"] += 1
        except BaseException as problem:
            problem.add_note(f"{target.__name__}: seed {seed}/{number}")
            raise
        taken = time.process_time() - started
        assert taken < MOST_SECONDS, f"{target.__name__}: seed {seed}/{number} takes {taken:.1f} s"
        found[target.__name__] += 1
        number += 1
    return found


def main() -> None:
    """Fuzz within bounded memory, print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    for name, count in sorted(run(options.seconds, options.seed).items()):
        sys.stdout.write(f"{name}: {count}\n")
    sys.stdout.write(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB\n")


if __name__ == "__main__":
    main()
