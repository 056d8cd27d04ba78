"""What an attack may take at most by the settings, whatever it is on; and the errors that name the bound."""

from dataclasses import dataclass

from service.errors import BusyError, InputError
from serving.http.settings import Attacks
from serving.kinds.work import AttackCost


@dataclass(frozen=True)
class Words:
    """What the errors call the parts of an attack.

    attack: the attack itself. input: the name of the tensor. one: a row of it. network: what is passed through. steps,
    fewer: what to do about too many passes, and about too much work.
    """

    attack: str
    input: str
    one: str
    network: str
    steps: str
    fewer: str


def check_budget(limits: Attacks, rows: int, cost: AttackCost, words: Words) -> None:
    """InputError if an attack has too many rows, or may take too many passes or too much work."""
    if rows > limits.rows:
        raise InputError(f"input {words.input!r} must have at most {limits.rows} rows (attacks.rows); it has {rows}")
    if cost.passes > limits.passes:
        raise InputError(
            f"{words.attack} must take at most {limits.passes:,} passes through the {words.network} for each "
            f"{words.one} (attacks.passes); it takes up to {cost.passes:,}",
            words.steps,
        )
    if cost.gmacs > limits.gmacs:
        raise InputError(
            f"{words.attack} must take at most {limits.gmacs:,.0f} billion multiplications (attacks.gmacs); "
            f"{rows} {words.one}s x {cost.passes:,} passes take up to {cost.gmacs:,.0f}",
            words.fewer,
        )


def too_late(limits: Attacks, words: Words) -> BusyError:
    """The error of an attack that has taken too long."""
    return BusyError(f"the attack must end within {limits.seconds:g} s (attacks.seconds)", words.fewer)
