"""A printed sheet without a printer: the PDF drawn as pixels by a drawing of our own, from where the layout says."""

import numpy as np

from jobs.invisibility_cloak.physical import layout

PIXELS = 5  # a millimetre


def drawn(paper: layout.PaperName = "a4", patch: np.ndarray | None = None) -> np.ndarray:
    """uint8 (height, width, 3). patch: uint8, fills most of the room inside."""
    width, height = layout.PAPERS[paper]
    page = np.full((round(height * PIXELS), round(width * PIXELS), 3), 255, np.uint8)

    def square(x: float, y: float, side: float, colour: object) -> None:
        ends = [round((at + by * side / 2) * PIXELS) for at in (y, x) for by in (-1, 1)]
        page[ends[0] : ends[1], ends[2] : ends[3]] = colour

    for x, y in layout.marks(paper):
        for units, colour in zip(layout.MARK_UNITS, (0, 255, 0), strict=True):
            square(x, y, layout.MARK * units / layout.MARK_UNITS[0], colour)
    for (x, y), colour in zip(layout.swatches(paper), layout.colours(), strict=True):
        square(x, y, layout.SWATCH, (255 * colour).round())
    if patch is not None:
        top, left = round((layout.BAND + 5) * PIXELS), round((layout.BAND + 20) * PIXELS)
        big = patch.repeat(PIXELS, 0).repeat(PIXELS, 1)
        page[top : top + len(big), left : left + big.shape[1]] = big
    return page
