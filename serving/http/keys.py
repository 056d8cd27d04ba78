"""Keys to the endpoints: how one is made, what is stored of it, and whose key is in a request.

A key is 256 random bits, so one salted SHA-256 is enough to keep it by: a slow hash protects what can be guessed, and
would delay every request. A key that a person invented cannot be configured.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from service.errors import InputError, UnauthorisedError
from serving.http.settings import KEY_NAME, Key

HEADER = "authorization"
SCHEME = "bearer"
HINT = "send it as `Authorization: Bearer KEY`"
_FORM = re.compile(r"assay-[A-Za-z0-9_-]{43}")


def new_key(name: str) -> tuple[str, Key]:
    """A new key, and its entry for the settings, from which the key cannot be computed."""
    token = f"assay-{secrets.token_urlsafe(32)}"
    salt = secrets.token_bytes(16)
    return token, Key(name=name, hash=f"sha256:{salt.hex()}:{_digest(salt, token).hex()}")


def new_key_text(name: str) -> str:
    """A new key and its entry for the settings, for a person to read. InputError if the name is not allowed."""
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
        """Whose key is in a request. UnauthorisedError if it has no key, or one that is not known.

        authorizations: the values of its Authorization headers. The time that this takes says nothing about the keys.
        """
        if not authorizations:
            raise UnauthorisedError("a key is required", HINT)
        scheme, _, token = authorizations[0].strip().partition(" ")
        token = token.strip()
        if len(authorizations) > 1 or scheme.lower() != SCHEME:
            raise UnauthorisedError("the Authorization header must hold one key", HINT)
        if not _FORM.fullmatch(token):
            raise UnauthorisedError("the key is not known")
        holder = None
        for key, salt, digest in self._keys:
            if hmac.compare_digest(_digest(salt, token), digest):
                holder = key
        if holder is None:
            raise UnauthorisedError("the key is not known")
        return holder
