"""How fast fingerprints of music are attacked and looked up, on one core, by the processor's time.

Steps of an attack at the peaks alone against the paper's losses as they are written there, over whole maps with torch's
convolution and unfolded maxima (tests/jobs/copyright_attack/attack/full_maps.py), at equal losses; songs that are made
fingerprints of in a second; excerpts that a database identifies in a second, against audfprint where it is installed.
In turn, the best of ROUNDS.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from jobs.common.audio.fingerprints.database import Database
from jobs.common.audio.fingerprints.fingerprint import Fingerprint
from jobs.common.data.music import MusicParams
from jobs.common.data.music.excerpts import excerpts
from jobs.copyright_attack.attack.objectives import RingObjective, prepared
from jobs.copyright_attack.judges.audfprint import AudfprintJudge
from tests.jobs.copyright_attack.attack.full_maps import log_map, ring_loss

SONGS, SECONDS, ROUNDS = 20, 12.0, 3
STEPS = 3
ALIKE = 1e-3  # by which two losses may differ, as a share


def seconds_of(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


def best_of(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each way, the least of ROUNDS, in turn."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, act in ways.items():
            best[name] = min(best[name], seconds_of(act))
    return best


def attacks(sounds: Tensor, rate: int) -> None:
    """A step of the ring loss, forward and backward, of one excerpt."""
    objective, fingerprint, original = RingObjective(), Fingerprint(), sounds[:1]
    marks = fingerprint.peaks(original)
    gathered = prepared(objective, [fingerprint], original, rate)
    settings = (objective.outer, objective.inner, objective.margin, objective.alpha)

    def whole_maps(changed: Tensor) -> Tensor:
        pairs = zip(fingerprint.resolutions, marks, strict=True)
        return torch.stack([ring_loss(log_map(changed, each), at, *settings) for each, at in pairs]).mean(0)

    at = (original + 0.01 * torch.randn(original.shape)).requires_grad_()
    own, plain = (float(loss(at.detach())) for loss in (gathered, whole_maps))
    assert abs(own - plain) < ALIKE * plain, (own, plain)

    def steps(loss: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: [torch.autograd.grad(loss(at).sum(), [at]) for _ in range(STEPS)]

    best = best_of({"at the peaks": steps(gathered), "over whole maps": steps(whole_maps)})
    for name, each in best.items():
        ratio = best["over whole maps"] / each
        print(f"{SECONDS:g} s, {name}: {STEPS / each:.1f} steps/s, {ratio:.1f} of whole maps, loss {own:.4f}")


def lookups(rate: int) -> None:
    """Fingerprints of songs, and excerpts looked up."""
    enrolled, _ = MusicParams(enrolled=SONGS, others=1).load()
    fingerprint = Fingerprint()
    songs = {name: sound.numpy() for name, sound in zip(enrolled.names, enrolled.sounds, strict=True)}
    queries = excerpts(enrolled, SECONDS, 1, 0).sounds
    judge = AudfprintJudge()
    there = judge.available() is None

    ways: dict[str, Callable[[], object]] = {
        "fingerprint": lambda: [fingerprint.hashes(sound) for sound in enrolled.sounds]
    }
    if there:
        ways["audfprint"] = lambda: [judge.fingerprint(sound, rate) for sound in songs.values()]
    for name, each in best_of(ways).items():
        print(f"{enrolled.seconds / SONGS:g} s, {name}: {SONGS / each:.1f} songs/s")

    database = Database.built(fingerprint, enrolled.sounds)
    ways = {"database": lambda: [database.identify(query) for query in queries]}
    if there:
        judge.enrol(songs, rate)
        ways["audfprint"] = lambda: [judge.judge(query.numpy(), rate) for query in queries]
    best = best_of(ways)
    for name, each in best.items():
        against = f", {best['audfprint'] / each:.2f} of audfprint" if there else ""
        print(f"{SECONDS:g} s among {SONGS} songs, {name}: {SONGS / each:.1f} excerpts identified/s{against}")
    right = sum(database.identify(query).best == place for place, query in enumerate(queries))
    print(f"the database names {right} of {SONGS} rightly" + ("" if there else "; audfprint2 is not installed"))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    enrolled, _ = MusicParams(enrolled=2, others=1).load()
    attacks(excerpts(enrolled, SECONDS, 1, 0).sounds, enrolled.rate)
    lookups(enrolled.rate)


if __name__ == "__main__":
    main()
