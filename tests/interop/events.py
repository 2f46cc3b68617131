"""Checks that the event file of a run has the numbers of its metrics.jsonl, each step once.

    events.py FOLDER...

An independent reader of TFRecord and Event: only the standard library.
"""

import json
import math
import struct
import sys
from pathlib import Path


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    at = 0
    while at < len(data):
        length, crc = struct.unpack_from("<QI", data, at)
        assert crc == masked(data[at : at + 8]), f"checksum of a length at byte {at}"
        record = data[at + 12 : at + 12 + length]
        (crc,) = struct.unpack_from("<I", data, at + 12 + length)
        assert crc == masked(record), f"checksum of a record at byte {at}"
        yield record
        at += 16 + length


def fields(message):
    """(number, value) of each field of a message; bytes for messages and text."""

    def varint(at):
        value = shift = 0
        while True:
            value |= (message[at] & 0x7F) << shift
            shift += 7
            at += 1
            if message[at - 1] < 0x80:
                return value, at

    at = 0
    while at < len(message):
        key, at = varint(at)
        kind = key & 7
        if kind == 0:
            value, at = varint(at)
        elif kind == 1:
            (value,) = struct.unpack_from("<d", message, at)
            at += 8
        elif kind == 2:
            length, at = varint(at)
            value, at = message[at : at + length], at + length
        elif kind == 5:
            (value,) = struct.unpack_from("<f", message, at)
            at += 4
        else:
            raise ValueError(f"wire type {kind}")
        yield key >> 3, value


def main(folders):
    for folder in map(Path, folders):
        (path,) = (folder / "tensorboard").iterdir()
        assert "tfevents" in path.name, path
        version, start, *events = [dict(fields(record)) for record in records(path.read_bytes())]
        assert version[3] == b"brain.Event:2" and dict(fields(start[7])) == {1: 1}, (version, start)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [event[2] for event in events] == [line["step"] for line in lines] and lines, path
        for event, line in zip(events, lines):
            assert abs(event[1] - line["unix_time"]) < 1e-3 and event[1] > 1.7e9, (event[1], line)
            values = [dict(fields(value)) for _, value in fields(event[5])]
            values = {value[1].decode(): value[2] for value in values}
            assert len(values) == 8 + ("held_out" in line), values
            for tag, value in values.items():
                want = line[tag.removeprefix("terms/")]
                assert math.isclose(value, want, rel_tol=1e-6, abs_tol=1e-30), (tag, value, want)


if __name__ == "__main__":
    main(sys.argv[1:])
