"""Square: random search without gradients, which changes one square window at a time and keeps what helps.

Source: Andriushchenko et al. 2020, algorithms 1 to 3, and the code released with AutoAttack for what is not in them.
"""

from bisect import bisect_left
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Norm
from jobs.common.attacks.base import Attack, Cost, Search, kept
from jobs.common.attacks.losses import margin
from jobs.common.attacks.square_windows import Bumps, Stripes

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""the windows, of a search of 10,000, after which the area of the next ones is halved"""


class Square(Attack):
    """Random windows, each kept if it raises the margin of the goal; a sample leaves at the first success.

    The samples of a batch share the places of the windows. The schedule of their areas and the start of each norm are
    those of AutoAttack's code.
    """

    kind: Literal["square"] = Field("square", description="random windows, without gradients")
    queries: int = Field(5000, ge=1, le=1_000_000, description="windows tried after each start, one query each")
    p_init: float = Field(0.8, gt=0, le=1, description="share of the image that the first windows cover")
    restarts: int = Field(1, ge=1, le=1000, description="starts, each from other random stripes or tiles")
    rescale: bool = Field(False, description="windows shrink in proportion to the queries, not as if they were 10,000")

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        return Cost(forward=self.queries + 1, backward=0).times(self.restarts)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        for rows in search.starts(self.restarts):
            self._start(search, rows, generator)

    def _start(self, search: Search, rows: Tensor, generator: torch.Generator) -> None:
        changes: type[Stripes | Bumps] = Stripes if search.ball.norm == "Linf" else Bumps
        state = changes(search.images[rows], search.ball, self.areas(), generator)
        aim, logits = search.goal[rows], search.logits(rows, state.points)
        best, hits = margin(logits, aim), search.record(rows, state.points, logits)
        some_hit = bool(hits.any())
        for number in range(self.queries):
            if some_hit:
                rows, best = kept(~hits, rows, best)
                if not len(rows):
                    return
                aim = search.goal[rows]
                state.keep(~hits)
            passes = state.passes(search.model, number)
            logits = search.logits(rows, state.propose(number), passes)
            margins = margin(logits, aim)
            better, hits = margins > best, margins >= 0  # at 0 a sample may be at its goal
            some_hit, some_better = torch.stack([hits, better]).any(1).tolist()
            if not (some_hit or some_better):  # mostly, which is quick
                state.reject()
                continue
            if some_hit:
                hits = aim.reached(logits)
                better |= hits
                some_hit = bool(hits.any())
            best = torch.where(better, margins, best)
            state.accept(better)
            if some_hit:
                search.record(rows[hits], state.points[hits], logits[hits])
        search.keep(rows[~hits], state.points[~hits])

    def areas(self) -> list[float]:
        """The share of the image that each window covers."""
        places = [int(number / self.queries * 10_000) if self.rescale else number for number in range(self.queries)]
        return [self.p_init / 2 ** bisect_left(HALVED_AFTER, place) for place in places]
