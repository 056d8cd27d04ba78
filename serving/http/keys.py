"""Keys to the endpoints: how one is made, what is kept of it, and whose key a request brings.

A key is 256 random bits, so one salted SHA-256 is enough to keep it by: a slow hash protects what can be guessed, and
would hold up every request. A key that somebody thought of cannot be configured.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from service.errors import InputError, StrangerError
from serving.http.settings import KEY_NAME, Key

HEADER = "authorization"
SCHEME = "bearer"
HOW = "send it as `Authorization: Bearer KEY`"
_FORM = re.compile(r"assay-[A-Za-z0-9_-]{43}")


def new_key(name: str) -> tuple[str, Key]:
    """A new key, and what the settings hold of it. The key cannot be had from them again."""
    token = f"assay-{secrets.token_urlsafe(32)}"
    salt = secrets.token_bytes(16)
    return token, Key(name=name, hash=f"sha256:{salt.hex()}:{_digest(salt, token).hex()}")


def introduce(name: str) -> str:
    """A new key and the lines for the settings, to be read by a person. InputError if the name is not allowed."""
    if not re.fullmatch(KEY_NAME, name):
        raise InputError(f"key name {name!r}: use up to 63 lower-case letters, digits and dashes")
    token, key = new_key(name)
    return (
        f"the key of {name}, shown this once and kept nowhere:\n\n  {token}\n\n"
        f"for `keys:` in the settings, such as configs/serve.yaml:\n\n  - name: {name}\n    hash: {key.hash}\n"
    )


def _digest(salt: bytes, token: str) -> bytes:
    return hashlib.sha256(salt + token.encode()).digest()


class Keyring:
    """The keys of the settings."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys: list[tuple[Key, bytes, bytes]] = []
        for key in keys:
            _, salt, digest = key.hash.split(":")
            self._keys.append((key, bytes.fromhex(salt), bytes.fromhex(digest)))

    def __bool__(self) -> bool:
        return bool(self._keys)

    def holder(self, authorizations: Sequence[str]) -> Key:
        """Whose key a request brings. StrangerError if it has none that is known.

        authorizations: the values of its Authorization headers. How long it takes says nothing about the keys.
        """
        if not authorizations:
            raise StrangerError("a key is needed here", HOW)
        scheme, _, token = authorizations[0].strip().partition(" ")
        token = token.strip()
        if len(authorizations) > 1 or scheme.lower() != SCHEME:
            raise StrangerError("the Authorization header is not one key", HOW)
        if not _FORM.fullmatch(token):
            raise StrangerError("the key is not known here")
        found = None
        for key, salt, digest in self._keys:
            if hmac.compare_digest(_digest(salt, token), digest):
                found = key
        if found is None:
            raise StrangerError("the key is not known here")
        return found
