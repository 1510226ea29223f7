"""The CRC-32 of bytes put together, from those of the parts."""

import zlib


class JoinedChecksum:
    """Joins the CRC-32 of any bytes with that of `length` bytes that follow them.

    Going on by `length` bytes is linear in the checksum so far, but for what the bytes add: of
    zeros, crc(z, c) ^ crc(z, 0) is the linear part, which is looked up byte by byte of c.
    """

    def __init__(self, length: int) -> None:
        zeros = bytes(length)
        nothing = zlib.crc32(zeros, 0)
        bits = [zlib.crc32(zeros, 1 << bit) ^ nothing for bit in range(32)]
        self._tables = [[0] * 256 for _ in range(4)]
        for number, table in enumerate(self._tables):
            for value in range(1, 256):
                low = value & -value
                bit = bits[8 * number + low.bit_length() - 1]
                table[value] = table[value ^ low] ^ bit

    def of(self, before: int, after: int) -> int:
        """Return the checksum of both, from that of what comes before and that of what follows."""
        first, second, third, fourth = self._tables
        return (
            after
            ^ first[before & 255]
            ^ second[before >> 8 & 255]
            ^ third[before >> 16 & 255]
            ^ fourth[before >> 24]
        )
