"""Check the headers of a file before Pillow reads them.

Pillow keeps each segment, chunk and tag, and libtiff allocates a whole tile: a file that
consists only of headers could cost gigabytes or minutes. Only headers are read here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from PIL import Image

from rootstock.data.limits import DecodeLimits
from rootstock.errors import ImageError

WALKED_FROM_BYTES = 1_000_000
"""A shorter file cannot contain enough parts to take half a second."""
MAX_SEGMENTS = 1_000
"""Segments of a JPEG before its pixels."""
MAX_CHUNKS = 10_000
"""Chunks of a PNG other than pixels and frames, and blocks of a GIF before its first frame."""
MAX_PIXEL_CHUNKS = 200_000
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 2_000_000_000
"""Scans of a JPEG times its pixels: each scan visits all pixels."""
MAX_TAGS = 4_096
MAX_TILES = 200_000
MAX_PLAIN_VALUES = 8_000_000
"""Values of a PPM file that Pillow reads one by one, a million per second."""
_TAG_SHARE = 4
"""Tags may hold this many times the size of the file: some writers let them overlap."""
_PPM_HEADER_BYTES = 4_096
_TYPE_BYTES = dict(enumerate([1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8], start=1))
_TILE_WIDTH, _TILE_LENGTH, _STRIP_OFFSETS, _TILE_OFFSETS = 322, 323, 273, 324
_PNG, _EXIF = b"\x89PNG\r\n\x1a\n", b"Exif\0\0"
_PIXEL_CHUNKS = (b"IDAT", b"fdAT", b"fcTL")
_METADATA_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_BOXED = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "CR3",
}
_SIGNATURES = {
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"8BPS": "PSD",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"gimp xcf": "XCF",
}


def find_unread_format(content: bytes) -> str:
    """Return the name of a known but unsupported image format, or an empty text."""
    if content[4:8] == b"ftyp":
        return _BOXED.get(content[8:12], "")
    if content[128:132] == b"DICM":
        return "DICOM"
    return next((name for start, name in _SIGNATURES.items() if content.startswith(start)), "")


def check_headers(content: bytes, limits: DecodeLimits) -> None:
    """Refuse a file whose headers are expensive to read.

    Raises:
        ImageError: ``too-many-parts``, ``too-many-pixels`` or ``damaged``.
    """
    start = content[:4]
    if start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        _check_tiff(content, limits)
    elif start[:1] == b"P" and start[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6", b"f"):
        _check_ppm(content)
    elif len(content) < WALKED_FROM_BYTES:
        return
    elif start[:2] == b"\xff\xd8":
        _count(_jpeg_segments(content), MAX_SEGMENTS, "segments before its pixels")
    elif start == b"GIF8":
        _count(_gif_blocks(content), MAX_CHUNKS, "blocks before its first frame")
    elif content.startswith(_PNG):
        _count(_png_chunks(content), MAX_PIXEL_CHUNKS, "chunks")
        others = (c for c in _png_chunks(content) if content[c + 4 : c + 8] not in _PIXEL_CHUNKS)
        _count(others, MAX_CHUNKS, "chunks of metadata")


def check_scans(content: bytes, image: Image.Image) -> None:
    """Refuse a JPEG, opened as ``image``, that visits its pixels too many times.

    Raises:
        ImageError: ``too-many-parts``.
    """
    if "progressive" not in image.info and _is_one_scan(content, image):
        return
    width, height = image.size
    allowed = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(1, width * height))
    if content.count(b"\xff\xda") > allowed:  # some may be in metadata, or after the image's end
        _count(_scans(content), allowed, f"scans of {width} x {height} pixels")


def fits_tags(block: bytes) -> bool:
    """Return whether the tags of an EXIF block are cheap to read."""
    try:
        _read_tags(block.removeprefix(_EXIF))
    except ImageError:
        return False
    return True


def without_metadata(content: bytes) -> bytes:
    """Return a PNG without texts and colour profile, whose size Pillow limits."""
    if not content.startswith(_PNG):
        return content
    parts, end = [_PNG], len(_PNG)
    for at in _png_chunks(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] not in _METADATA_CHUNKS:
            parts.append(content[at:end])
    return b"".join([*parts, content[end:]])


def _count(parts: Iterator[object], allowed: int, what: str) -> None:
    if sum(1 for _, _ in zip(range(allowed + 1), parts, strict=False)) > allowed:
        raise ImageError("too-many-parts", f"the file has more than {allowed:,} {what}")


def _jpeg_segments(content: bytes) -> Iterator[int]:
    """Yield the positions of the segments before the first scan."""
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            at += 1  # Pillow skips it too
            yield at
        elif content[at + 1] in (0xFF, 0x00, 0x01, *range(0xD0, 0xDA)):
            at += 1 if content[at + 1] == 0xFF else 2
            yield at
        elif content[at + 1] == 0xDA:
            return
        else:
            yield at
            at += 2 + max(2, int.from_bytes(content[at + 2 : at + 4], "big"))


_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


def _scans(content: bytes) -> Iterator[int]:
    at = 2
    while (found := _MARKER.search(content, at)) and found[0] != b"\xff\xd9":
        at = found.end()
        if found[0] == b"\xff\xda":
            yield at
        if found[0] != b"\xff\xd8":
            at += int.from_bytes(content[at : at + 2], "big")


def _is_one_scan(content: bytes, image: Image.Image) -> bool:
    """Return whether Pillow's current scan holds all colours of a sequential JPEG."""
    colours = len(getattr(image, "layer", ()))
    file = getattr(image, "fp", None)
    if not colours or file is None:
        return False
    start = file.tell() - 8 - 2 * colours
    header = b"\xff\xda" + (6 + 2 * colours).to_bytes(2, "big") + bytes([colours])
    return start > 0 and content[start : start + 5] == header


def _gif_blocks(content: bytes) -> Iterator[int]:
    """Yield the positions of the extension blocks before the first frame."""
    if len(content) < 13:
        return
    at = 13 + (3 * 2 ** ((content[10] & 7) + 1) if content[10] & 0x80 else 0)
    while at + 2 < len(content) and content[at] != 0x2C:
        if content[at] != 0x21:
            at += 1  # Pillow skips it too
            yield at
            continue
        at += 2
        while at < len(content) and content[at]:
            yield at
            at += 1 + content[at]
        at += 1
        yield at


def _png_chunks(content: bytes) -> Iterator[int]:
    """Yield the positions of the chunks, up to the last one."""
    at = len(_PNG)
    while at + 12 <= len(content):
        yield at
        if content[at + 4 : at + 8] == b"IEND":
            return
        at += 12 + int.from_bytes(content[at : at + 4], "big")


def _check_tiff(content: bytes, limits: DecodeLimits) -> None:
    tags = _read_tags(content)
    tile = tags.get(_TILE_WIDTH, (0, 0))[1] * tags.get(_TILE_LENGTH, (0, 0))[1]
    if tile > limits.max_pixels:
        raise ImageError(
            "too-many-pixels", f"a tile of the file has more than {limits.max_pixels:,} pixels"
        )
    count = max(tags.get(tag, (0, 0))[0] for tag in (_STRIP_OFFSETS, _TILE_OFFSETS))
    if count > MAX_TILES:
        raise ImageError("too-many-parts", f"the file has more than {MAX_TILES:,} tiles or strips")


def _read_tags(block: bytes) -> dict[int, tuple[int, int]]:
    """Return count and (for a single number) value of each tag in a TIFF's first directory.

    Raises:
        ImageError: Pillow would copy much more than the block contains.
    """
    order = "<" if block[:2] == b"II" else ">"
    big = b"+" in block[2:4]
    entry, offset_of, count_of = ("HHQ", "Q", "Q") if big else ("HHI", "I", "H")
    tags: dict[int, tuple[int, int]] = {}
    total = 0
    try:
        (at,) = struct.unpack_from(order + offset_of, block, 8 if big else 4)
        (length,) = struct.unpack_from(order + count_of, block, at)
        at += struct.calcsize(count_of)
        if length > MAX_TAGS:
            raise ImageError("too-many-parts", f"the file has more than {MAX_TAGS:,} tags")
        for _ in range(length):
            tag, kind, count = struct.unpack_from(order + entry, block, at)
            at += struct.calcsize("=" + entry)
            size, room = count * _TYPE_BYTES.get(kind, 0), struct.calcsize(offset_of)
            if size <= room:
                code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind, "")
                value = struct.unpack_from(order + code, block, at)[0] if code and count else 0
            else:
                (where,) = struct.unpack_from(order + offset_of, block, at)
                total += size if where + size <= len(block) else 0
                value = 0
            tags[tag] = (count, value)
            at += room
    except struct.error:
        pass  # truncated: Pillow reports the error
    if total > _TAG_SHARE * len(block):
        raise ImageError("too-many-parts", "the file's tags claim far more bytes than it has")
    return tags


def _check_ppm(content: bytes) -> None:
    head = re.sub(rb"#[^\r\n]*", b"", content[:_PPM_HEADER_BYTES]).split(maxsplit=4)
    bilevel = content[1:2] in b"14"
    if len(head) < (3 if bilevel else 4):
        raise ImageError("damaged", "the header is damaged: it does not end")
    try:
        numbers = [int(word) for word in head[1 : 3 if bilevel else 4]]
    except ValueError:
        return  # a fractional scale, or not an image: Pillow reports the error
    values = numbers[0] * numbers[1] * (3 if content[1:2] in b"36" else 1)
    slow = content[1:2] in b"123" or (not bilevel and numbers[2] not in (255, 65_535))
    if slow and values > MAX_PLAIN_VALUES:
        raise ImageError(
            "too-many-pixels",
            f"a PPM file with its values as text, or with an odd maximum, may have "
            f"{MAX_PLAIN_VALUES:,} values",
        )
