"""Vector instructions that Numba's loops do not become by themselves: sixteen numbers at a time.

Every sum has one order, so the bytes depend neither on threads nor on the width of the machine's registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types

intrinsic: Any = extending.intrinsic  # takes the first parameter of what it makes, which mypy cannot know
WIDE = 16  # numbers; features are padded with zeros to a multiple
SUBSETS = 16  # of four points, whose sums are tabulated
TABLE = 16 * SUBSETS * WIDE  # entries for one word: 16 groups of four points


def padded(X: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    """Return points (n, d) in this type with features padded with zeros to a multiple of ``WIDE``."""
    n, d = X.shape
    if d % WIDE == 0:
        return X.astype(dtype, copy=False)
    out = np.zeros((n, -(-d // WIDE) * WIDE), dtype)
    out[:, :d] = X
    return out


def _address(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    """Return a pointer to sixteen numbers, ``offset`` numbers into a contiguous array of any shape."""
    data = context.make_array(kind)(context, builder, array).data
    vector = ir.VectorType(context.get_value_type(kind.dtype), WIDE)
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _bytes(kind: Any) -> int:
    return int(kind.dtype.bitwidth) // 8


@intrinsic
def add_subsets(context, total, at, tables, entry, word):
    """Add to total[at : at + 16] the table rows that the sixteen half-bytes of a word choose, from ``entry`` on."""

    def generate(context, builder, signature, arguments):
        size, number = _bytes(signature.args[0]), ir.IntType(64)
        place = _address(context, builder, signature.args[0], arguments[0], arguments[1])
        rows = []
        for group in range(16):
            chosen = builder.and_(builder.lshr(arguments[4], number(4 * group)), number(SUBSETS - 1))
            offset = builder.add(builder.mul(chosen, number(WIDE)), number(group * SUBSETS * WIDE))
            source = _address(context, builder, signature.args[2], arguments[2], builder.add(arguments[3], offset))
            rows.append(builder.load(source, align=size))
        while len(rows) > 1:
            rows = [builder.fadd(a, b) for a, b in zip(rows[::2], rows[1::2], strict=True)]
        builder.store(builder.fadd(builder.load(place, align=size), rows[0]), place, align=size)
        return context.get_dummy_value()

    return types.void(total, types.int64, tables, types.int64, types.uint64), generate


@intrinsic
def dot(context, a, at, b, start):
    """Return the inner product of a[at : at + 16] and b[start : start + 16], halves added to halves."""

    def generate(context, builder, signature, arguments):
        left, right = (
            builder.load(
                _address(context, builder, signature.args[k], arguments[k], arguments[k + 1]),
                align=_bytes(signature.args[k]),
            )
            for k in (0, 2)
        )
        product, width = builder.fmul(left, right), WIDE
        while width > 1:
            width //= 2
            low, high = (
                ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(first, first + width)))
                for first in (0, width)
            )
            empty = ir.Constant(product.type, ir.Undefined)
            product = builder.fadd(
                builder.shuffle_vector(product, empty, low), builder.shuffle_vector(product, empty, high)
            )
        return builder.extract_element(product, ir.IntType(32)(0))

    return a.dtype(a, types.int64, b, types.int64), generate


@intrinsic
def add(context, total, at, rows, start):
    """Add rows[start : start + 16] to total[at : at + 16]."""

    def generate(context, builder, signature, arguments):
        place, source = (_address(context, builder, signature.args[k], arguments[k], arguments[k + 1]) for k in (0, 2))
        size = _bytes(signature.args[0])
        added = builder.fadd(builder.load(place, align=size), builder.load(source, align=size))
        builder.store(added, place, align=size)
        return context.get_dummy_value()

    return types.void(total, types.int64, rows, types.int64), generate


@intrinsic
def sixteen_numbers(context, values, at, X, points, W, rows, d, first):
    """Go on with the inner products of sixteen pairs, values[at : at + 16], by the features first .. first + 15."""
    # Pair p is the point ``points[at + p]`` of X, flat, features padded with zeros, and the row ``rows[p]`` of W, flat,
    # (u, d); what follows the row is read, too, and not used.  Each sum has the order of its features: the products of
    # a pair are a vector, sixteen vectors are transposed, and their columns added.

    def generate(context, builder, signature, arguments):
        kinds, number, lane = signature.args, ir.IntType(64), ir.IntType(32)
        at, d, first = arguments[1], arguments[6], arguments[7]
        every = ir.VectorType(lane, WIDE)

        def vector(k, offset):
            return builder.load(_address(context, builder, kinds[k], arguments[k], offset), align=_bytes(kinds[k]))

        def whole(k, offset):
            data = context.make_array(kinds[k])(context, builder, arguments[k]).data
            found = builder.load(builder.gep(data, [offset]))
            return found if found.type.width == 64 else builder.sext(found, number)

        numbers = ir.VectorType(number, WIDE)
        rest = builder.insert_element(ir.Constant(numbers, ir.Undefined), builder.sub(d, first), lane(0))
        rest = builder.shuffle_vector(rest, rest, ir.Constant(every, [0] * WIDE))
        there = builder.icmp_signed("<", ir.Constant(numbers, list(range(WIDE))), rest)
        padded = builder.and_(builder.add(d, number(WIDE - 1)), number(-WIDE))
        table = []
        for p in range(WIDE):
            x = vector(2, builder.add(builder.mul(whole(3, builder.add(at, number(p))), padded), first))
            w = vector(4, builder.add(builder.mul(whole(5, number(p)), d), first))
            table.append(builder.fmul(x, builder.select(there, w, ir.Constant(w.type, None))))
        for half in (1, 2, 4, 8):
            low = [j if not j & half else WIDE + (j ^ half) for j in range(WIDE)]
            high = [WIDE + j if j & half else j | half for j in range(WIDE)]
            for p in range(WIDE):
                if not p & half:
                    pair = table[p], table[p | half]
                    table[p] = builder.shuffle_vector(*pair, ir.Constant(every, low))
                    table[p | half] = builder.shuffle_vector(*pair, ir.Constant(every, high))
        place, size = _address(context, builder, kinds[0], arguments[0], at), _bytes(kinds[0])
        begun = builder.icmp_signed(">", first, number(0))
        total = builder.select(begun, builder.fadd(builder.load(place, align=size), table[0]), table[0])
        for column in table[1:]:
            total = builder.fadd(total, column)
        builder.store(total, place, align=size)
        return context.get_dummy_value()

    return types.void(values, types.int64, X, points, W, rows, types.int64, types.int64), generate


@intrinsic
def add_bits(context, total, at, word, sign):
    """Add ``sign`` to total[at + k], int8, for the bits k = 0 .. 63 that are set in a word."""

    def generate(context, builder, signature, arguments):
        byte = ir.IntType(8)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.VectorType(byte, 64).as_pointer())
        chosen = builder.sext(builder.bitcast(arguments[2], ir.VectorType(ir.IntType(1), 64)), ir.VectorType(byte, 64))
        empty = ir.Constant(ir.VectorType(byte, 64), ir.Undefined)
        one = builder.insert_element(empty, builder.trunc(arguments[3], byte), ir.IntType(32)(0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
        term = builder.and_(chosen, builder.shuffle_vector(one, empty, lanes))
        builder.store(builder.add(builder.load(place, align=1), term), place, align=1)
        return context.get_dummy_value()

    return types.void(total, types.int64, types.uint64, types.int64), generate


@intrinsic
def popcount(context, word):
    """LLVM's population count of a 64-bit word, which it turns into vector instructions."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate
