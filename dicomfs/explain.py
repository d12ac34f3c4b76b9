"""Why frames are stored as they are: what the packs themselves noted of the trials, in words and numbers."""

from __future__ import annotations

from dicomfs.codec.base import FROM_DISK, at_level
from dicomfs.format.pack_notes import Decision
from dicomfs.frames import segment_of
from dicomfs.model import CodedPiece, FramePiece, ObjectKey, Piece
from dicomfs.packing.segments import effort_noted, level_noted
from dicomfs.packs import PackSource

_ORDERS = ("as named", "along the slices")


def explain(source: PackSource, pieces: tuple[Piece, ...]) -> list[dict[str, object]]:
    """One document for each stack that a file has frames in; raises as opening a pack does."""
    first: dict[tuple[ObjectKey, int], int] = {}
    for piece in pieces:
        if isinstance(piece, FramePiece | CodedPiece):
            frame = piece.first if isinstance(piece, FramePiece) else piece.frame
            first.setdefault((piece.pack, piece.stack), frame)
    return [_stack(source, pack, stack, frame) for (pack, stack), frame in first.items()]


def _stack(source: PackSource, pack: ObjectKey, number: int, frame: int) -> dict[str, object]:
    reader = source.pack(pack)
    stack = reader.stack(number)
    segment = segment_of(pack, stack, frame)
    codec = _codec(segment.codec)
    level = level_noted(segment.params)
    found: dict[str, object] = {
        "profile": reader.packing.profile_name or None,
        "codec": codec,
        "effort": effort_noted(segment.params),
        "level": level,
        "frames": stack.frames,
        "raw_bytes": stack.frames * stack.layout.frame_bytes,
        "stored_bytes": sum(one.length for one in stack.segments),
        "segments": len(stack.segments),
        "segment_frames": segment.frames,
        "bands": len(segment.bands),
        "object": reader.name,
    }
    return found if stack.decision is None else {**found, **_decision(stack.decision, segment.codec, level)}


def _decision(decision: Decision, chosen: int, level: int) -> dict[str, object]:
    ratios = [
        (at_level(_codec(codec), its_level), raw / max(1, coded))
        for codec, its_level, raw, coded in decision.candidates
    ]
    return {
        "order": _ORDERS[decision.order] if decision.order < len(_ORDERS) else None,
        "references": list(decision.references),
        "candidates": [
            {"codec": name, "sample_bytes": raw, "bytes": coded, "ratio": round(ratio, 3)}
            for (name, ratio), (_, _, raw, coded) in zip(ratios, decision.candidates, strict=True)
        ],
        "other_order_bytes": decision.other_order or None,
        "reason": _reason(ratios, at_level(_codec(chosen), level)),
    }


def _reason(ratios: list[tuple[str, float]], chosen: str) -> str:
    """What speaks for the codec that was chosen, by the ratios on the sample."""
    own = [ratio for name, ratio in ratios if name == chosen]
    if not own:
        return "the codec that did best on the sample did not take these frames"
    name, best = max(ratios, key=lambda one: one[1])
    if best == max(own):
        return f"the smallest of {len(ratios)} that were tried"
    return f"{name} is {100 * (1 - max(own) / best):.1f} % smaller, which does not pay for slower reading"


def _codec(number: int) -> str:
    found = FROM_DISK.get(number)
    return f"codec {number}" if found is None else found.name.lower()
