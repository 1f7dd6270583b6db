"""Hostile submission files: every fault by row, as a second simple reading of the rules has it."""

from __future__ import annotations

import random
import re

import pytest

from kagflow.errors import DataError
from kagflow.task.check import check_submission
from kagflow.task.spec import TaskSpec
from kagflow.task.submission import read_submission

CLASSES = ("1", "2", "10")
PIXELS = 12
HEADERS = {"separate": "ImageId,ClassId,EncodedPixels", "joined": "ImageId_ClassId,EncodedPixels"}
SPECS = {
    "masks": TaskSpec("s", "segmentation", CLASSES, height=3, width=4),
    "labels": TaskSpec("s", "classification", CLASSES),
}


def good(rng: random.Random, form: str) -> list[list[str]]:
    """Return the cells of a valid file: header, then the rows of a few images."""
    images = rng.sample(["a.jpg", "b_1.png", "ü.jpg", "c d.jpg", "e", "f_10_1"], rng.randint(1, 4))
    if form == "labels":
        labels = [" ".join(rng.sample(CLASSES, rng.randint(0, 3))) for _ in images]
        return [["ImageId", "EncodedPixels"], *map(list, zip(images, labels, strict=True))]
    rows = []
    for image in images:
        for label in CLASSES:
            key = [f"{image}_{label}"] if form == "joined" else [image, label]
            rows.append([*key, rng.choice(["", "1 1", "2 3 8 5", "12 1"])])
    return [HEADERS[form].split(","), *rows]


def spoil_rows(rng: random.Random, rows: list[list[str]]) -> None:
    """Break some of the cells and rows."""
    at = rng.randrange(1, len(rows)) if len(rows) > 1 else 0
    kind = rng.randrange(13) if rows[at:] and rows[at] else 10
    if kind == 0 and len(rows) > 1:
        del rows[at]
    elif kind == 1:
        rows.insert(rng.randrange(1, len(rows) + 1), list(rows[at]))
    elif kind == 2:
        rows.insert(rng.randrange(1, len(rows) + 1), [*["x.jpg_1", "1"][: len(rows[at]) - 1], ""])
    elif kind == 3 and len(rows) > 2:
        other = rng.randrange(1, len(rows))
        rows[at], rows[other] = rows[other], rows[at]
    elif kind == 4:
        for row in rows:
            row.reverse()
    elif kind in (5, 6, 7):
        rows[at][-1] = rng.choice(
            ["nan", "0 1", "1 0", "1", "1 1 ", "5 2 1 1", "1 3 3 1", "12 2", "1.0 1", "1e3", "-1",
             "99999999999 1", "1,1", "\u0661 1", "7", "10 10", "1  2", "1 1 1", " ", "1\t1", "3 9"]
        )  # fmt: skip
    elif kind == 8:
        rows[at].append(rng.choice(["", "x"]))
    elif kind == 9:
        rows[at].pop()
    elif kind == 10:
        rows.insert(at, [])
    elif kind == 11:
        cell = rng.randrange(len(rows[at]))
        rows[at][cell] = rng.choice([rows[at][cell] + " ", "", "é\n", "\0", "_", "1_", '"', "a,b"])
    elif len(rows) > 1:
        del rows[rng.randrange(len(rows)) :]


def write(rng: random.Random, rows: list[list[str]]) -> bytes:
    """Write cells with more or fewer quotes than needed, and break the bytes."""
    always, text = rng.random() < 0.2, []
    for row in rows:
        quoted = [always or any(mark in cell for mark in ',"\n\r') for cell in row]
        text.append(
            ",".join(
                '"' + cell.replace('"', '""') + '"' if marks else cell
                for cell, marks in zip(row, quoted, strict=True)
            )
        )
    end = rng.choice(["\n"] * 12 + ["\r\n", "\r"])
    content = (end.join(text) + rng.choice(["", end, end + end])).encode()
    spoiled = rng.randrange(30)
    if spoiled == 0:
        content = b"\xef\xbb\xbf" + content
    elif spoiled == 1 and content:
        cut = rng.randrange(len(content))
        content = (
            content[:cut] + bytes([rng.choice([0xFF, 0x22, 0x0A, 0x2C, 0x00])]) + content[cut:]
        )
    elif spoiled == 2:
        content = content[: rng.randrange(len(content) + 1)]
    return content


def cells_of(text: str) -> tuple[list[tuple[int, list[str]]], int | None]:
    """Read a CSV one letter at a time; return the rows and the line where it made no sense."""
    rows, row, cell, line, begun, state = [], [], "", 1, 1, "start"
    for letter in text + "\n":
        if state == "quoted":
            line += letter == "\n"
            state, cell = ("closing", cell) if letter == '"' else (state, cell + letter)
        elif state == "closing" and letter == '"':
            state, cell = "quoted", cell + '"'
        elif letter in ",\n":
            row, cell, state = [*row, cell], "", "start"
            if letter == "\n":
                rows, row, line = [*rows, (begun, row)], [], line + 1
                begun = line
        elif state == "closing":
            return rows, begun
        elif state == "start" and letter == '"':
            state = "quoted"
        else:
            state, cell = "plain", cell + letter
    return rows, begun if state == "quoted" else None


def pair_faults(value: str) -> int:
    """Count what is wrong in run lengths, one pair after another."""
    if not value:
        return 0
    words, faults, last = value.split(" "), 0, 0
    for at in range(0, len(words), 2):
        pair = words[at : at + 2]
        strange = sum(not re.fullmatch(r"[1-9]\d{0,9}", word, re.ASCII) for word in pair)
        if strange or len(pair) < 2:
            faults, last = faults + (strange or 1), 0
            continue
        start, end = int(pair[0]), int(pair[0]) + int(pair[1]) - 1
        faults += (start <= last) + (end > PIXELS)
        last = end
    return faults


def label_faults(value: str) -> int:
    words = value.split(" ") if value else []
    return sum(word not in CLASSES or word in words[:at] for at, word in enumerate(words))


def key_of(cell: dict[str, str], form: str):
    if form == "labels":
        return (cell["ImageId"],) if "ImageId" in cell else None
    if form == "joined":
        if "ImageId_ClassId" not in cell:
            return None
        image, _, label = cell["ImageId_ClassId"].rpartition("_")
        return image, label
    return (cell["ImageId"], cell["ClassId"]) if {"ImageId", "ClassId"} <= set(cell) else None


def form_of(header: list[str], kind: str) -> str | None:
    names = set(header)
    if len(names) < len(header):
        return None
    if kind == "labels":
        return "labels" if {"ImageId", "EncodedPixels"} <= names else None
    if {"ImageId_ClassId", "EncodedPixels"} <= names:
        return "joined"
    return "separate" if set(HEADERS["separate"].split(",")) <= names else None


def expected(content: bytes, kind: str, sample: list[list[str]]) -> list[tuple[int, str]]:
    """Say (row, kind) of every fault, by the rules alone."""
    faults = []
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if content.startswith(b"\xef\xbb\xbf"):
        faults.append((1, "bom"))
    if b"\r" in content:
        faults.append((content[: content.index(b"\r")].count(b"\n") + 1, "crlf"))
    try:
        content.decode()
    except UnicodeDecodeError as fault:
        before = content[: fault.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        faults.append((before.count(b"\n") + 1, "encoding"))
    text = lines.removeprefix(b"\xef\xbb\xbf").decode(errors="replace").rstrip("\n")
    rows, broken = cells_of(text) if text else ([], None)
    if broken is not None:
        faults.append((broken, "quotes"))
    if not rows:
        return [*faults, (0, "file")]
    header, body = rows[0][1], rows[1:]
    if header != sample[0]:
        faults.append((1, "header"))
    form = form_of(header, kind)
    if form is None:
        return faults
    asked = [tuple(key_of(dict(zip(sample[0], row, strict=True)), form_of(sample[0], kind)))
             for row in sample[1:]]  # fmt: skip
    seen, out_of_order = [], None
    for line, row in body:
        if row == [""]:
            faults.append((line, "cells"))
            continue
        if len(row) != len(header):
            faults.append((line, "cells"))
        cell = dict(zip(header, row, strict=False))
        value, key = cell.get("EncodedPixels", ""), key_of(cell, form)
        count = label_faults(value) if kind == "labels" else pair_faults(value)
        faults += [(line, "class" if kind == "labels" else "rle")] * count
        if key is None:
            continue
        if len(key) > 1 and key[1] not in CLASSES:
            faults.append((line, "class"))
        elif key not in asked:
            faults.append((line, "extra"))
        elif key in seen:
            faults.append((line, "twice"))
        else:
            later = any(asked.index(other) > asked.index(key) for other in seen)
            out_of_order = line if later and out_of_order is None else out_of_order
            seen.append(key)
    faults += [(out_of_order, "order")] if out_of_order else []
    return faults + [(0, "missing") for key in asked if key not in seen]


def play(number: int, folder) -> str | None:
    rng = random.Random(number)
    form = rng.choice(["separate", "joined", "labels"])
    kind = "labels" if form == "labels" else "masks"
    sample = good(rng, form)
    rows = [list(row) for row in sample]
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        spoil_rows(rng, rows)
    content = write(rng, rows)
    asked, path = folder / "sample.csv", folder / "submission.csv"
    asked.write_text("\n".join(map(",".join, sample)) + "\n")
    path.write_bytes(content)
    try:
        found = sorted(
            (fault.row, fault.kind) for fault in check_submission(path, SPECS[kind], asked)
        )
    except Exception as fault:  # noqa: BLE001 - any other one is a failure
        return f"{type(fault).__name__}: {fault}: {content!r}"
    wanted = sorted(expected(content, kind, sample))
    if found != wanted:
        return f"{found} where {wanted}: {content!r}"
    if not wanted:
        try:
            read_submission(path, SPECS[kind])
        except DataError as fault:
            return f"refused: {fault}: {content!r}"
    return None


def test_f16_a_share_of_hostile_files(tally, tmp_path) -> None:
    tally.share("hostile submission files", lambda number: play(number, tmp_path), range(400))


@pytest.mark.gauntlet
def test_f16_ten_thousand_hostile_files(tally, tmp_path) -> None:
    tally.full("hostile submission files", lambda number: play(number, tmp_path), 10_000,
               note="a fault by row more or less than the rules have")  # fmt: skip
