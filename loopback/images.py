"""Tell what a file is, and how large its picture: only from its first bytes, never from its name."""

import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A content type, with the size in pixels where the file is a picture that browsers may show."""

    content_type: str
    width: int | None = None
    height: int | None = None


UNKNOWN = Kind("application/octet-stream")


def sniff(data: bytes) -> Kind:
    """Return what `data` is."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return Kind("image/png", *struct.unpack(">II", data[16:24]))
        if data.startswith((b"GIF87a", b"GIF89a")):
            return Kind("image/gif", *struct.unpack("<HH", data[6:10]))
        if data.startswith(b"\xff\xd8\xff"):
            return Kind("image/jpeg", *_jpeg_size(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return Kind("image/webp", *_webp_size(data))
    except (struct.error, IndexError):
        return UNKNOWN
    return _text(data)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        marker, length = struct.unpack(">xBH", data[at : at + 4])
        # SOF0 … SOF15 hold the size, but for DHT, JPG and DAC, which share their range.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length


def _webp_size(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case b"VP8L":
            (bits,) = struct.unpack("<I", data[21:25])
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case _:
            width, height = struct.unpack("<HH", data[26:30])
            return width & 0x3FFF, height & 0x3FFF


def _text(data: bytes) -> Kind:
    try:
        data.decode()
    except UnicodeDecodeError:
        return UNKNOWN
    return UNKNOWN if b"\0" in data else Kind("text/plain; charset=utf-8")
