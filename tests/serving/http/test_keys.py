"""Keys: what is kept of them, and which headers bring one."""

import hashlib
import hmac
from collections.abc import Sequence

import pytest

from service.cli.commands import main
from service.errors import UnauthorisedError
from serving.http import keys as keys_of
from serving.http.keys import Keyring, new_key
from serving.http.settings import Key, parse_settings

TOKEN, ALICE = new_key("alice")
OTHER, BOB = new_key("bob")
RING = Keyring([ALICE, BOB])


def test_only_a_salted_hash_is_kept() -> None:
    assert TOKEN not in repr(ALICE) and TOKEN.removeprefix("assay-") not in ALICE.model_dump_json()
    algorithm, salt, digest = ALICE.hash.split(":")
    assert digest == hashlib.new(algorithm, bytes.fromhex(salt) + TOKEN.encode()).hexdigest()
    assert len({new_key("alice")[1].hash.split(":")[1] for _ in range(8)}) == 8, "salts repeat"
    assert len({new_key("alice")[0] for _ in range(8)}) == 8 and len(TOKEN) == 49  # 32 bytes in base64


def test_the_command_makes_a_key_that_the_settings_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--new-key", "carol"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (token,) = [line.strip() for line in lines if line.strip().startswith("assay-")]
    entry = lines[next(index for index, line in enumerate(lines) if "- name: carol" in line) :]
    settings = parse_settings("keys:\n" + "\n".join(entry))
    assert Keyring(settings.keys).holder([f"Bearer {token}"]) == Key(name="carol", hash=settings.keys[0].hash)
    assert main(["serve", "--new-key", "Carol Smith"]) == 2
    assert "'Carol Smith'" in capsys.readouterr().err


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer  {}", " Bearer {} "])
def test_the_scheme_is_read_as_http_says(header: str) -> None:
    assert RING.holder([header.format(TOKEN)]).name == "alice"
    assert RING.holder([header.format(OTHER)]).name == "bob"


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ([], "a key is required"),
        ([""], "must hold one key"),
        (["Bearer"], "not known"),
        (["Bearer "], "not known"),
        ([TOKEN], "must hold one key"),
        ([f"Basic {TOKEN}"], "must hold one key"),
        ([f"Bearer {TOKEN}", f"Bearer {TOKEN}"], "must hold one key"),
        ([f"Bearer {TOKEN} {TOKEN}"], "not known"),
        ([f"Bearer {TOKEN},Bearer {OTHER}"], "not known"),
        ([f"Bearer {TOKEN[:-1]}"], "not known"),
        ([f"Bearer {TOKEN}A"], "not known"),
        ([f"Bearer {TOKEN[:-4]}AAAA"], "not known"),
        ([f"Bearer {TOKEN.upper()}"], "not known"),
        (["Bearer alice"], "not known"),
        ([f"Bearer {ALICE.hash}"], "not known"),
        (["Bearer assay-\xff" + "A" * 42], "not known"),
        (["Bearer " + "A" * 60_000], "not known"),
    ],
    ids=range(17),
)
def test_without_a_known_key_a_request_is_unauthorised(headers: Sequence[str], sentence: str) -> None:
    with pytest.raises(UnauthorisedError) as raised:
        RING.holder(headers)
    assert sentence in str(raised.value) and raised.value.http_status == 401
    assert "alice" not in str(raised.value) and "bob" not in str(raised.value)


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever key it is, and if it is none, each is compared once, whole digest against whole digest."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return hmac.compare_digest(left, right)

    class Watched:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(keys_of, "hmac", Watched)
    unknown = new_key("nobody")[0]
    for token in (TOKEN, OTHER, unknown):
        compared.clear()
        try:
            RING.holder([f"Bearer {token}"])
        except UnauthorisedError:
            assert token == unknown
        assert [len(left) for left, _ in compared] == [32, 32]
        assert [right.hex() for _, right in compared] == [ALICE.hash.split(":")[2], BOB.hash.split(":")[2]]
