#!/usr/bin/env python3
"""A second verifier of Sandtrace trails, written from docs/trail-format.md.

It shares no code with the program, so that the document is held against
something: a test runs both over the attack corpus and compares their exit
codes. Python's standard library, and `cryptography` for Ed25519.

    verify.py TRAIL [--key VKEY|FILE] [--min-size N] [--witness-policy FILE]
                    [--level 0..3] [--live]
"""

import argparse
import base64
import binascii
import hashlib
import os
import re
import sys
from collections import Counter, deque

from notes import BadNote, CosignatureKey, Key, Note, Wrong, WitnessPolicy

VALID, TAMPERED, INCOMPLETE, UNTRUSTED, MALFORMED = 0, 1, 2, 3, 4
MAX_LINE = 65_535
MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1
REMEMBERED = 1024


class Fault(Exception):
    """What is wrong, and the exit code that it leads to."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class CutOff(Exception):
    """Nothing is wrong but that the bytes stop."""


def malformed(message):
    return Fault(MALFORMED, message)


def tampered(message):
    return Fault(TAMPERED, message)


# Lines


class Scanner:
    """Reads canonical JSON, and nothing else, from the bytes of a line."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def peek(self):
        if self.at == len(self.data):
            raise CutOff
        return self.data[self.at]

    def literal(self, text):
        found = self.data[self.at : self.at + len(text)]
        if found != text:
            if text.startswith(found):
                raise CutOff
            raise malformed(f"byte {self.at}: {text!r} belongs here")
        self.at += len(text)

    def string(self):
        self.literal(b'"')
        start, text = self.at, bytearray()
        while (byte := self.peek_in(start)) != 0x22:
            if byte < 0x20:
                raise malformed(f"byte {self.at}: control character")
            if byte == 0x5C:
                text += self.escape()
            else:
                text.append(byte)
                self.at += 1
        self.at += 1
        try:
            return bytes(text).decode("utf-8")
        except UnicodeDecodeError:
            raise malformed(f"byte {start}: not UTF-8") from None

    def peek_in(self, start):
        """The next byte of a string; what is cut off must still be UTF-8."""
        if self.at == len(self.data):
            try:
                self.data[start:].decode("utf-8")
            except UnicodeDecodeError as error:
                if error.reason != "unexpected end of data":
                    raise malformed("not UTF-8") from None
            raise CutOff
        return self.data[self.at]

    ESCAPES = {0x22: b'"', 0x5C: b"\\", 0x62: b"\b", 0x66: b"\f", 0x6E: b"\n", 0x72: b"\r", 0x74: b"\t"}

    def escape(self):
        self.at += 1
        short = self.ESCAPES.get(self.peek())
        if short is not None:
            self.at += 1
            return short
        self.literal(b"u00")
        digits = self.data[self.at : self.at + 2]
        if not re.fullmatch(rb"[01][0-9a-f]|[01]|", digits):
            raise malformed(f"byte {self.at}: escape that is not the canonical one")
        if len(digits) < 2:
            raise CutOff
        char = bytes([int(digits, 16)])
        if char in b"\b\f\n\r\t":
            raise malformed(f"byte {self.at}: escape that is not the canonical one")
        self.at += 2
        return char

    def number(self):
        match = re.compile(rb"-?(0|[1-9][0-9]*)?").match(self.data, self.at)
        self.at = match.end()
        if self.at == len(self.data):
            raise CutOff
        text = match.group()
        if not match.group(1) or text == b"-0" or self.data[self.at] in b".eE0123456789":
            raise malformed(f"byte {self.at}: not a canonical integer")
        if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
            raise malformed(f"byte {self.at}: integer out of range")
        return int(text)

    def value(self, depth):
        byte = self.peek()
        if byte == 0x22:
            return self.string()
        if byte in b"{[" and depth > MAX_DEPTH:
            raise malformed("nested too deeply")
        if byte == 0x7B:
            return self.object(depth)
        if byte == 0x5B:
            return self.array(depth)
        for text, value in ((b"null", None), (b"true", True), (b"false", False)):
            if byte == text[0]:
                self.literal(text)
                return value
        return self.number()

    def object(self, depth):
        self.literal(b"{")
        members, last = {}, None
        if self.peek() == 0x7D:
            self.at += 1
            return members
        while True:
            name = self.string()
            place = name.encode("utf-16-be")
            if last is not None and place <= last:
                raise malformed(f"byte {self.at}: member out of order or repeated")
            last = place
            self.literal(b":")
            members[name] = self.value(depth + 1)
            if self.peek() == 0x7D:
                self.at += 1
                return members
            self.literal(b",")

    def array(self, depth):
        self.literal(b"[")
        items = []
        if self.peek() == 0x5D:
            self.at += 1
            return items
        while True:
            items.append(self.value(depth + 1))
            if self.peek() == 0x5D:
                self.at += 1
                return items
            self.literal(b",")


def is_event_type(value):
    # The document leaves the list to the schema: any word will do that the
    # chain's own rules do not speak of.
    return isinstance(value, str) and re.fullmatch("[a-z_]+", value) is not None


def is_count(value):
    if isinstance(value, str):
        return re.fullmatch("[1-9][0-9]*", value) is not None and MAX_INTEGER < int(value) < 2**64
    return type(value) is int and value >= 0


def is_digest(value):
    return isinstance(value, str) and re.fullmatch("sha256:[0-9a-f]{64}", value) is not None


def is_verdict(value):
    return value is None or (
        isinstance(value, dict)
        and set(value) == {"policy_rule", "reason", "result"}
        and isinstance(value["policy_rule"], (str, type(None)))
        and isinstance(value["reason"], str)
        and value["result"] in ("allow", "anomaly", "deny")
    )


def is_string(value):
    return isinstance(value, str)


MEMBERS = (
    ("agent_id", is_string),
    ("event_id", lambda v: is_string(v) and re.fullmatch("evt_[0-9A-HJKMNP-TV-Z]{26}", v)),
    ("event_type", is_event_type),
    ("evidence_tier", lambda v: v in ("hypervisor", "kernel", "guest")),
    ("mono_us", is_count),
    ("payload", lambda v: isinstance(v, dict)),
    ("prev_hash", lambda v: v is None or is_digest(v)),
    ("record_hash", is_digest),
    ("sandbox_id", is_string),
    ("schema_version", lambda v: v == "1.0"),
    ("seq", lambda v: type(v) is int and v > 0),
    ("trace_id", is_string),
    ("verdict", is_verdict),
    (
        "wall_time",
        lambda v: is_string(v) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", v, re.ASCII),
    ),
)


def parse(line):
    """The members of a line, and where its `record_hash` member stands."""
    if len(line) > MAX_LINE:
        raise malformed("the line is too long")
    scanner, members, cut = Scanner(line), {}, None
    for index, (name, is_valid) in enumerate(MEMBERS):
        start = scanner.at
        scanner.literal((b"," if index else b"{") + b'"' + name.encode() + b'":')
        value = scanner.value(2)
        if not is_valid(value):
            raise malformed(f"member {name}")
        members[name] = value
        if name == "record_hash":
            cut = (start, scanner.at)
    scanner.literal(b"}")
    if scanner.at != len(line):
        raise malformed("bytes after the end of the record")
    return members, cut


def computed_hash(line, members, cut):
    hashed = line[: cut[0]] + line[cut[1] :] + (members["prev_hash"] or "").encode()
    return "sha256:" + hashlib.sha256(hashed).hexdigest()


# Tree


class Tree:
    """The Merkle tree so far: the roots of its largest full subtrees."""

    def __init__(self):
        self.size, self.nodes = 0, []

    def push(self, record_hash):
        node = hashlib.sha256(b"\0" + bytes.fromhex(record_hash[7:])).digest()
        level = 0
        self.size += 1
        while self.nodes and self.nodes[-1][0] == level:
            node = hashlib.sha256(b"\1" + self.nodes.pop()[1] + node).digest()
            level += 1
        self.nodes.append((level, node))

    def root(self):
        if not self.nodes:
            return hashlib.sha256(b"").digest()
        node = self.nodes[-1][1]
        for _, left in reversed(self.nodes[:-1]):
            node = hashlib.sha256(b"\1" + left + node).digest()
        return node


class Checkpoint:
    """The text of a checkpoint."""

    def __init__(self, text):
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() or "" in lines:
            raise BadNote("not the lines of a checkpoint")
        self.origin, size, root = lines[:3]
        if not re.fullmatch("0|[1-9][0-9]*", size) or int(size) >= 2**64:
            raise BadNote("not a size")
        try:
            self.root = base64.b64decode(root, validate=True)
        except binascii.Error:
            raise BadNote("not a root") from None
        if len(self.root) != 32 or base64.b64encode(self.root).decode() != root:
            raise BadNote("not a root")
        self.size = int(size)


# Trails


def need(payload, *names, of=str):
    for name in names:
        if not (is_count(payload.get(name)) if of is int else isinstance(payload.get(name), of)):
            raise malformed(f"payload: {name}")


class Trail:
    """What the records so far prove."""

    def __init__(self, pins, witnesses, root_at):
        self.pins, self.witnesses, self.root_at = pins, witnesses, root_at
        self.tree, self.last, self.identity = Tree(), None, None
        self.events, self.verdicts = Counter(), Counter()
        self.signed, self.key, self.origin, self.host_name = False, None, None, None
        self.pinned, self.cadence, self.allowed = True, 1024, 1024
        self.unattested, self.checkpoints, self.seal = 0, deque(), False
        self.forgotten, self.ended, self.segments, self.segment_cause = False, False, 1, None
        self.at = None

    def add(self, line):
        record, cut = parse(line)
        if computed_hash(line, record, cut) != record["record_hash"]:
            raise tampered("record_hash")
        self.check_payload(record)
        self.check_place(record)
        self.check_meaning(record)
        self.tree.push(record["record_hash"])
        self.events[record["event_type"]] += 1
        if record["verdict"]:
            self.verdicts[record["verdict"]["result"]] += 1
        about_itself = ("checkpoint", "cosignature", "key_rotate", "segment_end", "segment_start")
        if record["event_type"] not in about_itself:
            self.unattested += 1
        self.last = record
        self.note_state()

    def note_state(self):
        if self.root_at == self.tree.size:
            self.at = (self.tree.root(), self.key)

    def check_payload(self, record):
        payload = record["payload"]
        match record["event_type"]:
            case "trail_start":
                need(payload, "nonce", "origin", "tool_version")
                need(payload, "capture", of=list)
            case "session_start":
                need(payload, "prior_size", "signed_size", "torn_bytes", of=int)
                need(payload, "prior_hash", "tool_version")
            case "checkpoint":
                need(payload, "note")
            case "cosignature":
                need(payload, "note", "witness")
            case "key_rotate":
                need(payload, "certificate", "key")
            case "segment_end" | "segment_start":
                need(payload, "number", "size", of=int)
                need(payload, "root", "cause")
            case "capture_gap":
                need(payload, "count", of=int)
                need(payload, "unit")
            case "trail_end":
                need(payload, "events", "verdicts", of=dict)
        if "key" in payload and record["event_type"] in ("trail_start", "session_start"):
            need(payload, "key", of=dict)
            need(payload["key"], "certificate", "host", "trail")

    def check_place(self, record):
        kind, last = record["event_type"], self.last
        if last is None:
            if record["seq"] != 1 or record["prev_hash"] is not None or kind != "trail_start":
                raise tampered("the first record is no trail_start")
            self.identity = [record[name] for name in ("agent_id", "sandbox_id", "trace_id")]
            return
        if last["event_type"] == "trail_end" and kind != "checkpoint":
            raise tampered("something follows the trail_end")
        if record["seq"] != last["seq"] + 1:
            raise tampered("seq")
        if record["prev_hash"] != last["record_hash"]:
            raise tampered("prev_hash")
        if kind == "trail_start":
            raise tampered("a second trail_start")
        if last["event_type"] == "segment_end" and kind != "segment_start":
            raise tampered("only a segment_start follows a segment_end")
        if self.identity != [record[name] for name in ("agent_id", "sandbox_id", "trace_id")]:
            raise tampered("of another trail")
        if self.seal and kind != "cosignature":
            raise tampered("something follows the seal")

    def check_meaning(self, record):
        payload, kind = record["payload"], record["event_type"]
        if not self.signed and kind in ("checkpoint", "cosignature", "key_rotate"):
            raise tampered("a record of a signed trail")
        match kind:
            case "trail_start":
                self.origin = payload["origin"]
                if "key" in payload:
                    self.signed = True
                    self.key = self.certified(payload["key"])
                    cadence = payload.get("cadence") or {}
                    self.cadence = self.allowed = int(cadence.get("records", 1024))
            case "session_start":
                self.session(payload)
            case "checkpoint":
                self.checkpoint(payload["note"])
            case "cosignature":
                self.cosignature(payload["note"])
            case "key_rotate":
                if self.last["event_type"] != "checkpoint":
                    raise tampered("a key_rotate without a checkpoint before it")
                self.key = self.named(payload["certificate"], payload["key"], self.key)
            case "segment_end":
                self.segment(payload, self.segments)
                self.segment_cause = payload["cause"]
            case "segment_start":
                self.segment(payload, self.segments + 1)
                follows = self.last["event_type"] == "segment_end"
                same = follows and payload["cause"] == self.segment_cause != "sync_failed"
                if not (same or (not follows and payload["cause"] == "sync_failed")):
                    raise tampered("segment_start does not fit the segment_end")
                if payload.get("origin") != self.origin:
                    raise tampered("a segment of another trail")
                self.segments += 1
            case "trail_end":
                stated = [payload["events"], payload["verdicts"]]
                counted = [dict(self.events), dict(self.verdicts)]
                strip = lambda counts: {name: int(n) for name, n in counts.items() if int(n)}
                if [strip(one) for one in stated] != [strip(one) for one in counted]:
                    raise tampered("trail_end does not count the records")
                self.ended = True

    def certified(self, key):
        try:
            host = Key.parse(key["host"])
        except BadNote as error:
            raise tampered(f"the host's key: {error}") from None
        trail = self.named(key["certificate"], key["trail"], host)
        if self.host_name not in (None, host.name):
            raise tampered("another host")
        self.host_name = host.name
        if trail not in self.pins:
            try:
                note = Note(key["certificate"])
                self.pinned &= bool(note.signers(self.pins))
            except Wrong as error:
                raise tampered(f"certificate: {error}") from None
        return trail

    def named(self, certificate, stated, signer):
        """The key that `signer` names as the trail's."""
        try:
            note = Note(certificate)
            if not note.signers([signer]):
                raise tampered("a certificate by somebody else")
            title, key, rest = note.text.split("\n", 2)
            if title != "sandtrace/trail-key/v1" or rest or key != stated:
                raise tampered("the text of a certificate")
            key = Key.parse(key)
        except (BadNote, Wrong, ValueError) as error:
            raise tampered(f"certificate: {error}") from None
        if key.name != self.origin or isinstance(key, CosignatureKey):
            raise tampered("the certificate of another trail's key")
        return key

    def session(self, payload):
        if int(payload["prior_size"]) != self.tree.size or int(payload["signed_size"]) > self.tree.size:
            raise tampered("prior_size")
        if payload["prior_hash"] != self.last["record_hash"]:
            raise tampered("prior_hash")
        if self.signed != ("key" in payload):
            raise tampered("a session without a key, or with one")
        if self.signed:
            self.key = self.certified(payload["key"])
            self.allowed += self.cadence

    def checkpoint(self, text):
        try:
            note = Note(text)
            if not note.signers([self.key]):
                raise tampered("a checkpoint by somebody else")
            checkpoint = Checkpoint(note.text)
        except (BadNote, Wrong) as error:
            raise tampered(f"checkpoint: {error}") from None
        if checkpoint.origin != self.origin:
            raise tampered("a checkpoint of another trail")
        if (checkpoint.size, checkpoint.root) != (self.tree.size, self.tree.root()):
            raise tampered("a checkpoint over other records")
        if len(self.checkpoints) == REMEMBERED:
            self.checkpoints.popleft()
            self.forgotten = True
        self.checkpoints.append((checkpoint.size, note.text, set()))
        self.unattested, self.allowed = 0, self.cadence
        self.seal = self.last["event_type"] == "trail_end"

    def cosignature(self, text):
        try:
            note = Note(text)
            size = Checkpoint(note.text).size
            signers = note.signers(self.witnesses)
        except (BadNote, Wrong) as error:
            raise tampered(f"cosignature: {error}") from None
        if self.forgotten and size < self.checkpoints[0][0]:
            return
        for own_size, own_text, seen in self.checkpoints:
            if (own_size, own_text) == (size, note.text):
                seen.update(signers)
                return
        raise tampered("a cosignature of no checkpoint of this trail")

    def segment(self, payload, number):
        root = "sha256:" + self.tree.root().hex()
        stated = (int(payload["number"]), int(payload["size"]), payload["root"])
        if stated != (number, self.tree.size, root):
            raise tampered("a segment's number, size or root")


# Files


def segment_path(first, number):
    stem, extension = os.path.splitext(first)
    return first if number == 1 else f"{stem}.{number:04}{extension}"


def segments(first):
    paths = [first]
    while os.path.lexists(path := segment_path(first, len(paths) + 1)):
        paths.append(path)
    return paths


def lines(paths):
    """Lines with their line feeds; the last one may lack it."""
    for path, following in zip(paths, paths[1:] + [None]):
        last = restart(following) if following else None
        with open(path, "rb") as file:
            while line := file.readline(MAX_LINE + 2):
                if last is not None and (not line.endswith(b"\n") or seq_of(line) > last):
                    break
                yield line


def restart(path):
    """Records before a segment that took the place of one that failed."""
    try:
        with open(path, "rb") as file:
            record, _ = parse(file.readline(MAX_LINE + 2).rstrip(b"\n"))
    except (Fault, CutOff):
        return None
    payload = record["payload"]
    failed = record["event_type"] == "segment_start" and payload.get("cause") == "sync_failed"
    return int(payload["size"]) if failed else None


def seq_of(line):
    try:
        return parse(line.rstrip(b"\n"))[0]["seq"]
    except (Fault, CutOff):
        return 2**64


def beside(first):
    """The checkpoint beside the trail, as a note."""
    try:
        with open(first + ".checkpoint", "rb") as file:
            return file.read(49_153)
    except FileNotFoundError:
        return None


# Answers


def check_beside(trail, note, checkpoint):
    if not trail.signed:
        raise tampered("a checkpoint beside a trail that is not signed")
    if checkpoint.origin != trail.origin:
        raise tampered("the checkpoint beside it is of another trail")
    root, key = trail.at or (None, trail.key)
    try:
        signed = bool(note.signers([key or trail.key]))
    except Wrong as error:
        raise tampered(f"the checkpoint beside it: {error}") from None
    if trail.at is None:
        raise Fault(INCOMPLETE, "rolled back behind the checkpoint beside it")
    if not signed or checkpoint.root != root:
        raise tampered("the checkpoint beside it does not fit")


def answer(args):
    pins = [key for argument in args.key for key in keys(argument)]
    policy = None
    if args.witness_policy:
        with open(args.witness_policy, encoding="utf-8") as file:
            policy = WitnessPolicy(file.read())
        pins += policy.logs
    level = args.level
    if level is None:
        level = 1 if args.live else 3 if policy else 2
    text, note, checkpoint = beside(args.trail), None, None
    if text is not None:
        try:
            note = Note(text.decode("utf-8"))
            checkpoint = Checkpoint(note.text)
        except (BadNote, UnicodeDecodeError):
            note = None
    trail = Trail(pins, policy.keys if policy else [], checkpoint.size if checkpoint else None)
    trail.note_state()
    partial = read(trail, segments(args.trail))
    problems = []
    if trail.last is None:
        return INCOMPLETE
    sealed = trail.ended and (trail.seal or not trail.signed)
    if partial and trail.ended and not trail.signed:
        raise tampered("something follows the trail_end")
    if not args.live and (partial or not sealed):
        problems.append(INCOMPLETE)
    if text is not None and note is None:
        problems.append(MALFORMED)
    elif note is not None:
        try:
            check_beside(trail, note, checkpoint)
        except Fault as fault:
            problems.append(fault.code)
    if trail.tree.size < (args.min_size or 0):
        problems.append(INCOMPLETE)
    if not trail.signed:
        if pins or level > 0:
            problems.append(UNTRUSTED)
    else:
        covered = trail.checkpoints and trail.unattested <= trail.allowed
        is_whole = args.live or (sealed and not partial)
        if (pins and not trail.pinned) or (level > 0 and is_whole and not covered):
            problems.append(UNTRUSTED)
        if level >= 2 and not sealed:
            problems.append(INCOMPLETE)
        if policy and (args.level is None or level == 3):
            looked_at = list(trail.checkpoints)[-1:] if sealed or not args.live else trail.checkpoints
            if not any(policy.satisfied_by(seen) for _, _, seen in looked_at):
                problems.append(UNTRUSTED)
    order = (VALID, INCOMPLETE, UNTRUSTED, MALFORMED, TAMPERED)
    return max(problems, key=order.index, default=VALID)


def read(trail, paths):
    """Adds every line, and gives the partial one at the end."""
    for line in lines(paths):
        if line.endswith(b"\n"):
            try:
                trail.add(line[:-1])
            except CutOff:
                raise malformed("the record stops before its end") from None
            continue
        try:
            parse(line)
        except CutOff:
            pass
        return line
    return b""


def keys(argument):
    try:
        return [Key.parse(argument)]
    except BadNote:
        with open(argument, encoding="utf-8") as file:
            texts = [line.strip() for line in file]
        return [Key.parse(text) for text in texts if text and not text.startswith("#")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trail")
    parser.add_argument("--key", action="append", default=[])
    parser.add_argument("--min-size", type=int)
    parser.add_argument("--witness-policy")
    parser.add_argument("--level", type=int, choices=range(4))
    parser.add_argument("--live", action="store_true")
    try:
        code = answer(parser.parse_args())
        message = ("valid", "tampered", "incomplete", "untrusted", "malformed")[code]
    except Fault as fault:
        code, message = fault.code, str(fault)
    except OSError as error:
        code, message = MALFORMED, str(error)
    print(message)
    sys.exit(code)


if __name__ == "__main__":
    main()
