"""CRC-32C of a file, as object storage sends it where it has no MD5; many lanes at once in numpy.

Castagnoli's polynomial, reflected (RFC 3720, appendix B.4). The register is linear in the bytes, so
lanes are run side by side from zero and then joined: the CRC of two pieces is that of the first,
moved on by the length of the second, XOR that of the second.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

POLYNOMIAL = 0x82F63B78
LANES = 1 << 14
BLOCK = 1 << 24  # bytes read at once


def crc32c_file(path: Path) -> int:
    """Return the CRC-32C of a file's bytes."""
    register = 0xFFFFFFFF
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            register = _moved(register, len(block)) ^ _from_zero(block)
    return register ^ 0xFFFFFFFF


def _from_zero(block: bytes) -> int:
    """Return the register after `block`, begun at zero: zeros in front change nothing."""
    lanes = min(LANES, 1 << (len(block) - 1).bit_length())
    length = -(-len(block) // lanes)
    padded = np.zeros(lanes * length, np.uint8)
    padded[lanes * length - len(block) :] = np.frombuffer(block, np.uint8)
    columns = np.ascontiguousarray(padded.reshape(lanes, length).T)
    table, registers = _table(), np.zeros(lanes, np.uint32)
    for column in columns:
        registers = table[(registers ^ column) & 0xFF] ^ (registers >> np.uint32(8))
    while len(registers) > 1:
        registers = _apply(_shift(length), registers[::2]) ^ registers[1::2]
        length *= 2
    return int(registers[0])


def _moved(register: int, length: int) -> int:
    return int(_apply(_shift(length), np.array([register], np.uint32))[0])


def _apply(matrix: Words, words: Words) -> Words:
    """Multiply by a matrix over GF(2): XOR of the columns whose bit is set."""
    result = np.zeros_like(words)
    for bit in range(32):
        chosen = (words >> np.uint32(bit)) & np.uint32(1)
        result ^= chosen * matrix[bit]
    return result


@lru_cache
def _shift(length: int) -> Words:
    """Return the matrix, as 32 columns, that moves a register on by `length` zero bytes."""
    if length == 1:
        ones = np.uint32(1) << np.arange(32, dtype=np.uint32)
        moved: Words = _table()[ones & 0xFF] ^ (ones >> np.uint32(8))
        return moved
    half = _shift(length // 2)
    whole = _apply(half, half)
    return _apply(_shift(1), whole) if length % 2 else whole


@lru_cache
def _table() -> Words:
    words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        words = (words >> np.uint32(1)) ^ (words & np.uint32(1)) * np.uint32(POLYNOMIAL)
    return words
