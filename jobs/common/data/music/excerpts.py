"""Excerpts of songs: what a matcher is asked about."""

from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.common.data.music.base import Songs
from service.errors import FieldError


@dataclass(frozen=True)
class Excerpts:
    """Pieces of songs, all of one length."""

    rate: int
    """samples a second"""
    sounds: Tensor
    """float32 (n, samples)"""
    songs: Tensor
    """int64 (n,): the place of its song"""
    starts: Tensor
    """int64 (n,): the sample of its song that it begins with"""

    def __len__(self) -> int:
        return len(self.songs)

    @property
    def seconds(self) -> Tensor:
        """Where in its song each begins: float64 (n,)."""
        return self.starts.double() / self.rate


def excerpts(songs: Songs, seconds: float, each: int, seed: int) -> Excerpts:
    """`each` excerpts of every song, which begin anywhere: at no multiple of any hop.

    seconds: of an excerpt. Of no songs there are none. FieldError if a song is shorter.
    """
    length = round(seconds * songs.rate)
    if not len(songs):
        none = torch.zeros(0, dtype=torch.int64)
        return Excerpts(songs.rate, torch.zeros(0, length), none, none)
    shortest = min(map(len, songs.sounds))
    if not 1 <= length <= shortest:
        raise FieldError("seconds of an excerpt", f"be at most {shortest / songs.rate:.3g}, a song's", seconds)
    generator = torch.Generator().manual_seed(seed)
    places = torch.arange(len(songs)).repeat_interleave(each)
    room = torch.tensor([len(sound) - length + 1 for sound in songs.sounds], dtype=torch.float64)[places]
    starts = (torch.rand(len(places), generator=generator, dtype=torch.float64) * room).long()
    pairs = zip(places.tolist(), starts.tolist(), strict=True)
    sounds = [songs.sounds[place][start : start + length] for place, start in pairs]
    return Excerpts(songs.rate, torch.stack(sounds), places, starts)
