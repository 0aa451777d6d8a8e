"""Pictures of many kinds and their damages, seeded: the part of header_fuzz.py that knows PNG, JPEG and TIFF."""

from __future__ import annotations

import io
import itertools
import random
import struct
import zlib

import numpy as np
import PIL.Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
PNG_KINDS = [
    *itertools.product((1, 2, 4, 8), (GREY, PALETTE), (0, 1)),
    *itertools.product((8, 16), (RGB, RGBA, GREY_ALPHA), (0, 1)),
    *((16, GREY, interlaced) for interlaced in (0, 1)),
]  # depth, colour type, interlaced: all that the standard allows
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # of Adam7


def samples(depth: int, colour: int, width: int, height: int) -> np.ndarray:
    """Random values (rows, columns, channels) of a picture."""
    high = min(1 << depth, 200) if colour == PALETTE else 1 << depth
    return np.random.default_rng(depth).integers(0, high, (height, width, CHANNELS[colour]))


def png(depth: int, colour: int, interlaced: int, width: int = 20, height: int = 18, more=()) -> bytes:
    """A good PNG (ISO/IEC 15948) of random values; `more`: chunks (name, content) before those of the picture."""
    values = samples(depth, colour, width, height)
    parts = [values[y::down, x::across] for x, y, across, down in PASSES] if interlaced else [values]
    rows = b"".join(b"\0" + packed(row, depth) for part in parts if part.size for row in part)
    palette = [(b"PLTE", bytes(range(256)) * 3)] if colour == PALETTE else []
    if palette:
        palette = [(b"PLTE", palette[0][1][: 3 << depth])]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    picture = [(b"IHDR", header), *more, *palette, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return SIGNATURE + b"".join(chunk(*each) for each in picture)


def packed(row: np.ndarray, depth: int) -> bytes:
    """The values of a row as they lie in the file."""
    if depth >= 8:
        return row.astype(">u2" if depth == 16 else "u1").tobytes()
    bits = (row.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1
    return np.packbits(bits.astype(np.uint8).ravel()).tobytes()


def chunk(name: bytes, content: bytes, check: int | None = None) -> bytes:
    check = zlib.crc32(name + content) if check is None else check
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Names and contents of a good PNG's chunks."""
    found, place = [], len(SIGNATURE)
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def damaged_png(chance: random.Random) -> bytes:
    """A PNG of any kind with one to three damages, and check sums that are right but for where they are the damage."""
    content = png(*chance.choice(PNG_KINDS), width=chance.choice((1, 7, 20)), height=chance.choice((1, 5, 18)))
    parts = chunks(content)
    for _ in range(chance.randint(1, 3)):
        parts = chance.choice((_header, _palette, _pixels, _order, _extra))(parts, chance)
    written = [chunk(*part) for part in parts]
    if chance.random() < 0.1 and written:  # a check sum, or a length, is wrong
        n = chance.randrange(len(written))
        name, body = parts[n]
        wrong_length = struct.pack(">I", chance.choice((0, 1, 13, 1 << 20, 2**31 - 1, 2**32 - 1))) + written[n][4:]
        written[n] = chance.choice((chunk(name, body, check=chance.getrandbits(32)), wrong_length))
    return cut(SIGNATURE + b"".join(written), chance)


def cut(content: bytes, chance: random.Random) -> bytes:
    """Now and then a file ends early, goes on behind its end or has one wrong byte."""
    how = chance.random()
    if how < 0.08:
        return content[: chance.randrange(len(content))]
    if how < 0.12:
        return content + bytes(chance.randrange(256) for _ in range(40))
    if how < 0.2:
        place = chance.randrange(len(content))
        return content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]
    return content


def _header(parts, chance):
    """Another width, height, depth, colour type, compression, filter or interlacing."""
    fields = list(struct.unpack(">IIBBBBB", (dict(parts).get(b"IHDR", b"") + bytes(13))[:13]))
    n = chance.randrange(7)
    sizes = (0, 1, 2, 7, 19, 21, 40, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
    fields[n] = chance.choice(sizes if n < 2 else (0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 255))
    return [(name, struct.pack(">IIBBBBB", *fields) if name == b"IHDR" else body) for name, body in parts]


def _palette(parts, chance):
    """A palette that is missing, too short, too long, no multiple of three, or where none belongs; transparency."""
    entries = chance.choice((0, 1, 2, 3, 5, 6, 90, 255, 767, 768, 771, 900))
    found = [part for part in parts if part[0] not in (b"PLTE", b"tRNS")]
    where = chance.randint(0, len(found))
    extra = chance.choice(([(b"PLTE", bytes(entries))], [], [(b"PLTE", bytes(9)), (b"tRNS", bytes(entries % 300))]))
    return found[:where] + extra + found[where:]


def _pixels(parts, chance):
    """Packed rows that are cut off, too many, of unknown filters, packed wrongly, or no packed rows at all."""
    return [(name, _other_rows(body, chance) if name == b"IDAT" else body) for name, body in parts]


def _other_rows(body: bytes, chance) -> bytes:
    try:
        rows = bytearray(zlib.decompress(body)) or bytearray(1)
    except zlib.error:
        return body
    wrong = bytearray(rows)
    wrong[0 if chance.random() < 0.5 else chance.randrange(len(rows))] = chance.choice((1, 2, 3, 4, 5, 255))
    return chance.choice(
        (
            zlib.compress(bytes(rows[: chance.randrange(len(rows) + 1)])),
            zlib.compress(bytes(rows) + bytes(chance.choice((1, 100, 100_000)))),
            zlib.compress(bytes(wrong)),
            bytes(chance.randrange(256) for _ in range(len(body))),
            body[:1] + bytes([chance.randrange(256)]) + body[2:],
            body[:-2] + b"\0\0",
            b"",
        )
    )


def _order(parts, chance):
    """A chunk is missing, there twice, split in two or somewhere else."""
    n = chance.randrange(len(parts)) if parts else 0
    how = chance.choice(("gone", "twice", "moved", "split"))
    if not parts or how == "gone":
        return parts[:n] + parts[n + 1 :]
    if how == "twice":
        return parts[: n + 1] + parts[n:]
    if how == "split":
        name, body = parts[n]
        return [*parts[:n], (name, body[: len(body) // 2]), (name, body[len(body) // 2 :]), *parts[n + 1 :]]
    rest = parts[:n] + parts[n + 1 :]
    where = chance.randint(0, len(rest))
    return [*rest[:where], parts[n], *rest[where:]]


def _extra(parts, chance):
    """Chunks that programs add, with contents of any length."""
    name = chance.choice(
        (b"pHYs", b"gAMA", b"cHRM", b"iCCP", b"eXIf", b"tEXt", b"zTXt", b"acTL", b"fcTL", b"sBIT", b"ABCD")
    )
    body = bytes(chance.randrange(256) for _ in range(chance.choice((0, 1, 4, 8, 9, 32, 300))))
    where = chance.randint(0, len(parts))
    return [*parts[:where], (name, body), *parts[where:]]


def damaged_jpeg(chance: random.Random) -> bytes:
    """A JPEG of any usual kind, of which one to four bytes of the segments before the scan become others."""
    mode, progressive = chance.choice(("L", "RGB", "CMYK")), chance.random() < 0.3
    shades = np.random.default_rng(1).integers(0, 255, (18, 20, {"L": 1, "RGB": 3, "CMYK": 4}[mode])).astype(np.uint8)
    stream = io.BytesIO()
    picture = PIL.Image.fromarray(shades[..., 0] if mode == "L" else shades, mode)
    picture.save(stream, "JPEG", progressive=progressive, restart_marker_blocks=chance.choice((0, 2)))
    data = bytearray(stream.getvalue())
    segments = [n for n in range(len(data) - 1) if data[n] == 0xFF and data[n + 1] not in (0, 0xFF)]
    for _ in range(chance.randint(1, 4)):
        place = chance.choice(segments) + chance.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 18, 30))
        data[min(place, len(data) - 1)] = chance.choice((0, 1, 2, 3, 4, 8, 12, 17, 0x22, 255, chance.randrange(256)))
    return cut(bytes(data), chance)


def damaged_tiff(chance: random.Random) -> bytes:
    """A TIFF of any usual kind, of which one to three entries of the directory become others."""
    kinds = {
        "grey": PIL.Image.fromarray(samples(8, GREY, 20, 18)[..., 0].astype(np.uint8)),
        "colour": PIL.Image.fromarray(samples(8, RGB, 20, 18).astype(np.uint8)),
        "16 bits": PIL.Image.fromarray(samples(16, GREY, 20, 18)[..., 0].astype(np.uint16)),
        "float": PIL.Image.fromarray(samples(8, GREY, 20, 18)[..., 0].astype(np.float32) / 255),
        "palette": PIL.Image.fromarray(samples(8, RGB, 20, 18).astype(np.uint8)).quantize(16),
        "1 bit": PIL.Image.fromarray(samples(1, GREY, 20, 18)[..., 0].astype(bool)),
    }
    stream = io.BytesIO()
    packing = chance.choice((None, "tiff_lzw", "tiff_adobe_deflate", "packbits"))
    first, *others = [kinds[chance.choice(sorted(kinds))]] * chance.choice((1, 1, 1, 2))
    first.save(stream, "TIFF", compression=packing, save_all=bool(others), append_images=others)
    data = bytearray(stream.getvalue())
    (place,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, place)
    for _ in range(chance.randint(1, 3)):
        entry = place + 2 + 12 * chance.randrange(entries)
        numbers = (0, 1, 2, 3, 4, 7, 8, 12, 16, 32, 64, 1000, 65535, 65536, 2**31 - 1, 2**32 - 1)
        how = chance.choice(("value", "value", "value", "count", "type", "tag", "next"))
        if how == "next":
            struct.pack_into("<I", data, place + 2 + 12 * entries, chance.choice((place, 4, 10, 2**31, len(data))))
        elif how in ("tag", "type"):
            struct.pack_into(
                "<H", data, entry + 2 * (how == "type"), chance.choice((0, 1, 3, 4, 5, 12, 258, 262, 339, 277))
            )
        else:
            struct.pack_into("<I", data, entry + (8 if how == "value" else 4), chance.choice(numbers))
    return cut(bytes(data), chance)


DAMAGED = {"png": damaged_png, "jpg": damaged_jpeg, "tif": damaged_tiff}
