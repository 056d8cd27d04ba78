"""Mazes against the measured facts of the published ones, and against a plain breadth-first search."""

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jobs.deep_thinking.problems import problem
from jobs.deep_thinking.problems.maze_generation import reached
from service.errors import InputError

MAZES = problem("mazes", scale=1)
DOUBLED = problem("mazes")


def brute_distance(open_: np.ndarray, start: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Breadth-first search with a queue, one place at a time."""
    found, queue = {start: 0}, deque([start])
    while queue:
        row, column = queue.popleft()
        for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= place[0] < open_.shape[0] and 0 <= place[1] < open_.shape[1]
            if inside and open_[place] and place not in found:
                found[place] = found[row, column] + 1
                queue.append(place)
    return found


def place_of(maze: Tensor, colour: tuple[int, int, int]) -> tuple[int, int]:
    ((row, column),) = (maze == torch.tensor(colour).view(3, 1, 1)).all(0).nonzero().tolist()
    return row, column


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 12).map(lambda half: 2 * half + 1), seed=st.integers(0, 2**63 - 1))
def test_perfect_mazes_with_their_only_path(size: int, seed: int) -> None:
    inputs, targets = MAZES.sample(size, 3, seed)
    cells = (size + 1) // 2
    for maze, path in zip(inputs, targets, strict=True):
        open_ = (maze.amax(0) > 0).numpy()
        assert open_[1::2, 1::2].all() and open_.sum() == 2 * cells * cells - 1, "a spanning tree of the cells"
        distance = brute_distance(open_, place_of(maze, (0, 1, 0)))
        assert len(distance) == open_.sum(), "every cell can be reached"
        end = place_of(maze, (1, 0, 0))
        assert path.sum() == distance[end] + 1
        assert path[end] == 1 and (path.numpy() <= open_).all()
    assert MAZES.verify(inputs, targets).all()
    assert MAZES.check_inputs(inputs) == [None] * 3
    assert MAZES.warnings(inputs) == [None] * 3, "the search is rooted at the start, so it has one way out"


# mean path length in steps and its standard deviation over mazes (measured), and open share of the doubled image
@pytest.mark.parametrize(
    ("size", "count", "mean", "spread", "open_share"), [(9, 2000, 21.8, 9, 0.34), (13, 1000, 40.4, 18, 0.38)]
)
def test_statistics_of_the_published_recipe(
    size: int, count: int, mean: float, spread: float, open_share: float
) -> None:
    inputs, targets = DOUBLED.sample(size, count, 11)
    assert inputs.shape == (count, 3, 2 * size + 6, 2 * size + 6)
    steps = targets.flatten(1).sum(1) / 4 - 1
    # both are means of samples: theirs of 2,000 mazes
    assert abs(steps.mean().item() - mean) < 4 * spread * (1 / count + 1 / 2000) ** 0.5
    assert abs(DOUBLED.counted(inputs).float().mean().item() - open_share) < 0.005
    assert len(torch.unique(inputs, dim=0)) == count


def test_doubled_is_the_same_maze() -> None:
    plain, plain_targets = MAZES.sample(9, 5, 3)
    doubled, doubled_targets = DOUBLED.sample(9, 5, 3)
    assert torch.equal(doubled[:, :, 1:-1:2, 1:-1:2], plain) and torch.equal(doubled[:, :, 2:-1:2, 2:-1:2], plain)
    assert torch.equal(doubled_targets[:, 1:-1:2, 1:-1:2], plain_targets)
    assert doubled[:, :, [0, -1]].sum() == 0
    assert DOUBLED.verify(doubled, doubled_targets).all() and DOUBLED.check_inputs(doubled) == [None] * 5


def test_distances_equal_brute_force_also_with_loops_and_islands() -> None:
    stream = np.random.default_rng(0)
    open_ = stream.random((20, 9, 13)) < 0.7
    open_[:, 4, 4] = True
    for grid, distance in zip(open_, reached(open_, np.full((20, 2), 4)), strict=True):
        expected = brute_distance(grid, (4, 4))
        assert {place: distance[place] for place in expected} == expected
        assert (distance >= 0).sum() == len(expected)


def test_the_verifier_knows_wrong_answers() -> None:
    inputs, targets = MAZES.sample(9, 200, 0)
    for _ in range(20):  # flip one pixel somewhere: never a solution any more
        wrong = targets.clone().flatten(1)
        where = torch.randint(0, wrong.shape[1], (len(wrong), 1))
        wrong.scatter_(1, where, 1 - wrong.gather(1, where))
        assert not MAZES.verify(inputs, wrong.view_as(targets)).any()
    assert not MAZES.verify(inputs, torch.zeros_like(targets)).any()
    assert not MAZES.verify(inputs, MAZES.counted(inputs).long()).any(), "everything marked"


def drawn(*rows: str) -> Tensor:
    """A maze from text: # wall, . corridor, S start, E end."""
    colours = {"#": (0, 0, 0), ".": (1, 1, 1), "S": (0, 1, 0), "E": (1, 0, 0)}
    return torch.tensor([[colours[letter] for letter in row] for row in rows], dtype=torch.float32).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("maze", "sentence"),
    [
        (drawn("#####", "#S#E#", "#####"), "there is no way from the start to the end"),
        (drawn("#####", "#..E#", "#####"), "a maze has one start (green), this one has 0"),
        (drawn("#####", "#SSE#", "#####"), "a maze has one start (green), this one has 2"),
        (drawn("#####", "#S..#", "#####"), "a maze has one end (red), this one has 0"),
        (drawn("#####", "#S.E#", "#####") * 0.9, "pure black, white, green and red pixels only"),
        (DOUBLED.sample(9, 1, 0)[0][0], "it looks like one at scale 2"),
    ],
)
def test_images_without_an_answer(maze: Tensor, sentence: str) -> None:
    (said,) = MAZES.check_inputs(maze.unsqueeze(0))
    assert said is not None and sentence in said


def test_undoubled_where_doubled_is_expected() -> None:
    (said,) = DOUBLED.check_inputs(MAZES.sample(9, 1, 0)[0])
    assert said == "this is not a maze drawn at scale 2; it looks like one at scale 1"


def test_odd_shapes_are_welcome() -> None:
    maze = drawn("######", "#S...#", "####.#", "#E...#", "######").unsqueeze(0)
    assert maze.shape == (1, 3, 5, 6)
    answer = torch.tensor([[0] * 6, [0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0], [0, 1, 1, 1, 1, 0], [0] * 6]).unsqueeze(0)
    assert MAZES.check_inputs(maze) == [None] and MAZES.warnings(maze) == [None]
    assert MAZES.verify(maze, answer).all()


def test_loops_and_forked_starts_are_warned_of() -> None:
    loop = drawn("######", "#S...#", "#.##.#", "#E...#", "######")
    fork = drawn("######", "#.S.E#", "######")
    (first,), (second,) = MAZES.warnings(loop.unsqueeze(0)), MAZES.warnings(fork.unsqueeze(0))
    assert first is not None and "loops" in first
    assert second is not None and "the start has 2 ways out" in second
    longer = torch.tensor([[0] * 6, [0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0], [0, 1, 1, 1, 1, 0], [0] * 6])
    shorter = torch.tensor([[0] * 6, [0, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0] * 6])
    pair = torch.stack([loop, loop])
    assert MAZES.verify(pair, torch.stack([longer, shorter])).tolist() == [False, True], "the shortest path counts"


@pytest.mark.parametrize("size", [-1, 0, 1, 2, 8, 1003])
def test_sizes_that_make_no_sense(size: int) -> None:
    with pytest.raises(InputError, match="size must be odd, from 3 to 1001"):
        MAZES.sample(size, 1, 0)


def test_options_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="scale must be 1 or 2; it is 3"):
        problem("mazes", scale=3)
    with pytest.raises(InputError, match="refuses its options"):
        problem("mazes", colour="blue")
    with pytest.raises(InputError, match="did you mean 'mazes'"):
        problem("maze")


def test_picture_shows_the_path() -> None:
    inputs, targets = MAZES.sample(9, 1, 0)
    plain, solved = MAZES.picture(inputs[0], None), MAZES.picture(inputs[0], targets[0])
    assert plain.dtype == np.uint8 and min(plain.shape[:2]) >= 240
    blue = (solved == (66, 133, 244)).all(-1).mean()
    assert abs(blue - (targets.sum().item() - 2) / targets.numel()) < 1e-6, "all of the path but its two ends"
