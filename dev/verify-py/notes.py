"""Signed notes, keys and trust policies as docs/trail-format.md has them."""

import base64
import binascii
import hashlib
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_NOTE = 49_152

# Encodings of points of small order (and of zero), their sign bit cleared.
SMALL_ORDER = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)


class BadNote(Exception):
    """These bytes are no note, key or policy."""


class Wrong(Exception):
    """A trusted key's signature is wrong."""


def decode(text):
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadNote("not base64") from None
    if base64.b64encode(data).decode() != text:
        raise BadNote("not canonical base64")
    return data


def is_small(point):
    return point[:31] + bytes([point[31] & 0x7F]) in SMALL_ORDER


def is_name(name):
    return bool(name) and not re.search(r"[\s+]", name)


class Key:
    """A public key with its name, of type 0x01."""

    TYPE = 1

    def __init__(self, name, raw):
        if not is_name(name) or len(raw) != 32:
            raise BadNote("not a key")
        self.name, self.raw = name, raw
        hashed = name.encode() + b"\n" + bytes([self.TYPE]) + raw
        self.id = hashlib.sha256(hashed).digest()[:4]

    @staticmethod
    def parse(text):
        parts = text.split("+", 2)
        if len(parts) != 3:
            raise BadNote("not a key")
        name, key_id, data = parts[0], parts[1], decode(parts[2])
        kinds = [kind for kind in (Key, CosignatureKey) if data[:1] == bytes([kind.TYPE])]
        if not kinds:
            raise BadNote("a key of an unknown type")
        key = kinds[0](name, data[1:])
        if key.id.hex() != key_id:
            raise BadNote("the key's id is another")
        return key

    def __eq__(self, other):
        return type(self) is type(other) and (self.name, self.raw) == (other.name, other.raw)

    def __hash__(self):
        return hash((self.name, self.raw))

    def check(self, text, blob):
        """Whether this is a signature line's blob over that text."""
        return self.is_right(text.encode(), blob)

    def is_right(self, message, signature):
        if len(signature) != 64 or is_small(self.raw) or is_small(signature[:32]):
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class CosignatureKey(Key):
    """A witness's key, of type 0x04."""

    TYPE = 4

    def check(self, text, blob):
        if len(blob) != 72:
            return False
        time = int.from_bytes(blob[:8], "big")
        return self.is_right(f"cosignature/v1\ntime {time}\n{text}".encode(), blob[8:])


class Note:
    """A text and its signature lines."""

    def __init__(self, whole):
        size = len(whole.encode("utf-8", "surrogatepass"))
        if size > MAX_NOTE or any(char < " " and char != "\n" for char in whole):
            raise BadNote("not the characters of a note")
        split = whole.rfind("\n\n")
        if split < 0 or not whole.endswith("\n") or split + 2 >= len(whole):
            raise BadNote("no signatures")
        self.text = whole[: split + 1]
        lines = whole[split + 2 : -1].split("\n")
        if len(lines) > 100:
            raise BadNote("too many signatures")
        self.lines = [self.line(line) for line in lines]

    @staticmethod
    def line(line):
        parts = line.split(" ", 2)
        if len(parts) != 3 or parts[0] != "\u2014" or not is_name(parts[1]):
            raise BadNote("not a signature line")
        blob = decode(parts[2])
        if len(blob) < 5:
            raise BadNote("not a signature line")
        return parts[1], blob[:4], blob[4:]

    def signers(self, keys):
        """Those of the keys that have signed; each needs to be right."""
        found = []
        for name, key_id, blob in self.lines:
            for key in keys:
                if (key.name, key.id) == (name, key_id) and key not in found:
                    if not key.check(self.text, blob):
                        raise Wrong(f"the signature by {name} is wrong")
                    found.append(key)
        return found


class WitnessPolicy:
    """Which witnesses are enough (c2sp.org/tlog-policy)."""

    def __init__(self, text):
        self.logs, self.keys, self.entries, self.quorum = [], [], {}, None
        for line in text.split("\n"):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            match words:
                case ["log", key, *_]:
                    self.logs.append(Key.parse(key))
                case ["witness", name, key, *_]:
                    self.keys.append(Key.parse(key))
                    self.entries[name] = self.keys[-1]
                case ["group", name, threshold, *members] if members:
                    count = {"all": len(members), "any": 1}.get(threshold)
                    self.entries[name] = (count or int(threshold), members)
                case ["quorum", name]:
                    self.quorum = name
                case _:
                    raise BadNote("not a policy")
        if self.quorum is None:
            raise BadNote("no quorum")

    def satisfied_by(self, seen, name=None):
        name = name or self.quorum
        if name == "none":
            return True
        entry = self.entries[name]
        if isinstance(entry, Key):
            return entry in seen
        threshold, members = entry
        return sum(self.satisfied_by(seen, member) for member in members) >= threshold
