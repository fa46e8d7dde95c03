"""Mutations of files: of bytes, blindly, and of each format's structure, so that checksums and lengths still fit."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
from typing import Any

from gpu_sublinear.fitted.model import HEADER

HUGE = (0, 1, 7, 8, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
# fmt: off
NUMBERS = (
    "0", "-1", "1e999", "-1e308", "1e-400", "nan", "inf", "1_0", "0x10", "1e", "--1", "1,5", "9" * 400, "9" * 5000,
    "\u0661\u0662", "\u221e", "18446744073709551616", "-9223372036854775809", "2147483648", "4294967296", "10000000",
)
SNIPPETS = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06", b'"', b"'", b",", b";", b"\t",
    b"\r", b"\n", b"\r\n", b"\\", b"\x1a", b"\x0c", b"\xc2\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"{}", b"[]",
    b"null", b"#", b"=1+1", b"\x1b[31m", b"%s%n", b"\xf0\x9f\x92\xa9", b"O", b"|O8", b"S1",
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, 1e308, 10**400, 2**64, -(2**63), "", "x", "\ud800", "nan", "a" * 3000,
    "line\nbreak", [], {}, [[]], [1], ["a"], {"a": 1}, [0, 0], [8, 4], [2**62, 4], float("nan"), float("inf"), "F32",
    "F64", "I32", "BF16", "BOOL", "F8_E4M3", "U8", "unit", ["a", "b", 3], ["a", "a", "a"], [["a", 1]], "abc",
)
TYPES = (
    "<f8", "|O", "<U99999999", "V0", "|S2147483647", "<M8[ns]", "f", "", ">c16", "<f2", "<f16", "(9,9)f8",
)
SHAPES = (
    "()", "(0, 0)", "(-6, -4)", "(2**9, 4)", "(6, 4, 1)", "(True, 4)", "(10000000, 4)", "(" * 200, "(" * 5000,
    "(1," * 40 + ")" * 40, "[6, 4]", "(0, 99999999999)",
)
# fmt: on
DEEP = 20_000  # nested brackets: beyond any recursion limit


def mutate(content: bytes, suffix: str, others: list[bytes], rng: random.Random) -> bytes:
    """Return a mutation of ``content``: of its structure half of the time, then of its bytes half of the time."""
    structural = {".csv": mutate_text, ".npy": mutate_npy, ".npz": mutate_npz, ".safetensors": mutate_safetensors}
    structural[".checkpoint"] = mutate_safetensors
    if rng.random() < 0.5:
        content = structural[suffix](content, rng)
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            content = mutate_bytes(content, others, rng)
    return content


# ---- bytes ----------------------------------------------------------------------------------------------


def mutate_bytes(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Change some bytes without regard to what they mean."""
    at, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    head, middle, tail = content[:at], content[at:end], content[end:]
    other = rng.choice(others)
    changes = (
        lambda: flip(content, rng),
        lambda: head,
        lambda: head + tail,
        lambda: head + middle * rng.choice((2, 3, 50)) + tail,
        lambda: head + rng.choice(SNIPPETS) + content[at:],
        lambda: head + rng.choice(SNIPPETS) * rng.choice((10, 5000)) + content[at:],
        lambda: head + struct.pack("<Q", rng.choice(HUGE)) + content[at + 8 :],
        lambda: struct.pack("<Q", rng.choice(HUGE)) + content[8:],
        lambda: head + other[rng.randrange(len(other)) :],
        lambda: replace_number(content, rng),
        lambda: rng.randbytes(rng.randrange(200)),
    )
    return rng.choice(changes)()


def flip(content: bytes, rng: random.Random) -> bytes:
    """Flip one bit of up to eight bytes."""
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 9) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def replace_number(content: bytes, rng: random.Random) -> bytes:
    """Put an unusual number in the place of one that is there."""
    places = list(re.finditer(rb"[-+.\deE]*\d[.\deE]*", content[:4000]))
    if not places:
        return content
    place = rng.choice(places)
    return content[: place.start()] + rng.choice(NUMBERS).encode() + content[place.end() :]


# ---- structure ------------------------------------------------------------------------------------------


def mutate_text(content: bytes, rng: random.Random) -> bytes:
    """Change cells, lines, delimiters or the encoding of a table."""
    text = content.decode("utf-8", "replace")
    lines = text.split("\n")
    k = rng.randrange(len(lines))
    cells = lines[k].split(",")
    cells[rng.randrange(len(cells))] = rng.choice((*NUMBERS, "", '"', '""', '"a\nb"', "x" * 140_000, "\0", "é", '1"2'))
    changed = "\n".join([*lines[:k], ",".join(cells), *lines[k + 1 :]])
    changes = (
        lambda: changed.encode(),
        lambda: "\n".join([*lines[:k], lines[k] + rng.choice(",;\t|"), *lines[k + 1 :]]).encode(),
        lambda: text.replace(",", rng.choice((";", "\t", "|", ",,", ", ", " ")), rng.choice((1, -1))).encode(),
        lambda: text.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7", "cp500")), "replace"),
        lambda: text.replace("\n", rng.choice(("\r", "\r\n", "\n\n", "\0\n", "\x85", "\u2028"))).encode(),
        lambda: ("\n".join([lines[0]] * rng.choice((1, 300))) + "\n" + ",".join("1" * rng.choice((1, 4000)))).encode(),
    )
    return rng.choice(changes)()


def mutate_npy(content: bytes, rng: random.Random) -> bytes:
    """Rewrite the header of an array with other types, shapes and lengths."""
    start, text = content.find(b"{"), content.find(b"\n")
    if content[:6] != b"\x93NUMPY" or start < 0 or text < start:
        return content
    number = rng.choice((*NUMBERS, str(rng.choice(HUGE))))
    descr = rng.choice(TYPES)
    shape = rng.choice((*SHAPES, f"({number}, 4)", f"(6, {number})", f"({number}, {number})"))
    header = content[start:text].decode("latin-1")
    if rng.random() < 0.6:
        header = re.sub(r"'shape': \([^)]*\)", lambda _: f"'shape': {shape}", header)
    if rng.random() < 0.5:
        header = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {rng.choice((repr(descr), number, '[]'))}", header)
    header = header.replace("False", rng.choice(("False", "True", "1", "None", "''")))
    packed = header.encode("utf-8", "replace") + b" " * rng.choice((0, 3, 70_000)) + b"\n"
    version = rng.choice((1, 2, 3, 3, 9)) if len(packed) < 2**16 else rng.choice((2, 3))
    length = struct.pack("<H" if version == 1 else "<I", len(packed))
    return b"\x93NUMPY" + bytes((version, 0)) + length + packed + content[text + 1 :]


def mutate_npz(content: bytes, rng: random.Random) -> bytes:
    """Repack an archive with mutated members, other names, other compression: its checksums are right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # already damaged by another mutation
        return content
    packed = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, member in members.items():
            name = rng.choice((name, name, name, "X.npy", "X", "y.npy", "../X.npy", "X.npy.npy", "\u00e9.npy"))
            member = rng.choice((lambda m: m, lambda m: mutate_npy(m, rng), lambda m: mutate_bytes(m, [m], rng)))(
                member
            )
            archive.writestr(zipfile.ZipInfo(name), member, method)
        if rng.random() < 0.1:
            archive.writestr("bomb.npy", bytes(4_000_000), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Rewrite values in the header of a model file, or in our own header inside that one; lengths stay right."""
    try:
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        if rng.random() < 0.7:
            ours = change_value(json.loads(header["__metadata__"][HEADER]), rng)
            text = json.dumps(ours)
            text = rng.choice((
                text,
                text,
                text,
                text,
                "[" * DEEP,
                '{"a":' * DEEP,
                text.replace("0.5", rng.choice(NUMBERS)),
            ))
            header["__metadata__"][HEADER] = text
        else:
            header = change_value(header, rng)
        packed = json.dumps(header).encode("utf-8", "replace")
    except (ValueError, KeyError, TypeError, struct.error):  # already damaged by another mutation
        return content
    if rng.random() < 0.05:
        packed = b"[" * DEEP
    return struct.pack("<Q", len(packed)) + packed + content[8 + length :]


def change_value(tree: Any, rng: random.Random) -> Any:
    """Replace, add or remove one value somewhere in a tree of dictionaries and lists."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.1:
        return rng.choice(VALUES)
    key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
    action = rng.random()
    if action < 0.1:
        del tree[key]
    elif action < 0.2 and isinstance(tree, dict):
        tree[rng.choice(("rows", "feature_mean", "x", "format_version"))] = rng.choice((*VALUES, tree[key]))
    else:
        tree[key] = change_value(tree[key], rng)
    return tree
