"""What a run keeps besides its tables: numbers for sweeps, warnings, patches, pictures of boxes before and after."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jobs.invisibility_cloak import figures
from jobs.invisibility_cloak.making import PATCH, MatrixRow
from jobs.invisibility_cloak.params import CLEAN, Params
from jobs.invisibility_cloak.patch.model import patch_card, stored
from jobs.invisibility_cloak.patch.rendering import render
from jobs.invisibility_cloak.patch.targets import REASONS
from jobs.invisibility_cloak.transfer import Found, Key, TransferTest, targets_on
from service.run import Run

Table = Sequence[Mapping[str, Any]]
TEST = "test"
WEAK = 0.5  # recall without a patch below which a detector says little of attacks
MEASURES = ("ap50", "recall", "success", "false_positives")


def metrics_of(table: Table) -> dict[str, float]:
    """Numbers for a sweep: of every row on every victim, on the test split of the data."""
    return {
        f"{measure}_{row['patch']}_{row['victim']}": row[measure]
        for row in table
        if row["data"] == TEST
        for measure in MEASURES
        if row[measure] is not None
    }


def clean_metrics(table: Table, victim: str) -> dict[str, float]:
    """What is known of a detector, for its card."""
    own = [row for row in table if row["data"] == TEST and row["victim"] == victim and row["patch"] == CLEAN]
    return {name: row[name] for row in own for name in ("ap50", "ap", "recall") if row[name] is not None}


def save_patches(params: Params, rows: Sequence[MatrixRow], table: Table, run: Run) -> None:
    """Put every patch into the store, and its pixels into the run's folder, as an image and exactly."""
    for row in rows:
        if row.pixels is None or row.kind != PATCH:
            continue
        run.array(f"patch_{row.name}", row.pixels.numpy(), title=f"The patch {row.name}, (3, height, width)")
        run.file(f"patch_{row.name}.png", _png(row.pixels), title=f"The patch {row.name}")
        measured = {
            f"{measure}_{each['victim']}": each[measure]
            for each in table
            if each["patch"] == row.name and each["data"] == TEST
            for measure in ("ap50", "recall", "success")
            if each[measure] is not None
        }
        card = patch_card(row.pixels, params.hidden, row.against, params.rendering, measured)
        run.save_model(params.patch_model(row.name), stored(row.pixels), card)


def _png(pixels: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((pixels.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def warnings_of(table: Table, found: Mapping[Key, Found], confidence: float, hidden: str) -> list[str]:
    """What a reader has to know first. hidden: name of the class."""
    cells = {(row["patch"], row["victim"], row["data"]): row for row in table}
    warnings = []
    for (name, victim, data), row in cells.items():
        where = f"{victim} on {data}"
        clean = cells.get((CLEAN, victim, data))
        if name == CLEAN and not row["boxes"]:
            warnings.append(f"{data} has no box of class {hidden}: there is nothing to hide in it")
        elif not row["boxes"]:
            continue
        elif name == CLEAN and row["recall"] < WEAK:
            warnings.append(
                f"{where} finds {row['recall']:.0%} of class {hidden} without a patch at a confidence of "
                f"{confidence:g}: what it says of attacks is weak"
            )
        elif row["kind"] == PATCH and clean is not None:
            grey = cells.get(("grey", victim, data))
            if grey is not None and victim in row["against"].split(", ") and row["recall"] > grey["recall_low"]:
                warnings.append(
                    f"{name} was made against {victim} and hides hardly more of class {hidden} on {data} than a grey "
                    f"patch: {row['recall']:.0%} are found, and {grey['recall']:.0%} with grey"
                )
            if row["false_positives"] > 2 * clean["false_positives"] + 0.5:
                warnings.append(
                    f"{name} makes {where} report what is not there: {row['false_positives']:.1f} false positives an "
                    f"image, {clean['false_positives']:.1f} without a patch"
                )
    return warnings + skipped_boxes(found)


def skipped_boxes(found: Mapping[Key, Found]) -> list[str]:
    """Sentences about boxes on which nothing could be drawn, one for each set and each detector that differs."""
    sentences: dict[str, None] = {}
    for (_, _, data), each in found.items():
        if count := sum(each.skipped):
            reasons = ", ".join(f"{part} {reason}" for part, reason in zip(each.skipped, REASONS, strict=True) if part)
            sentences[f"on {count} of {count + each.drawn} boxes of {data} nothing could be drawn: {reasons}"] = None
    return list(sentences)


def keep_examples(params: Params, test: TransferTest, run: Run) -> None:
    """For every detector the first images of the test set without a patch, with grey, and with the patches."""
    images = test.sets[TEST]
    label = images.classes.index(params.hidden)
    shown = [place for place in range(len(images)) if len(images.boxes(place).of(label))][: params.examples]
    if not shown:
        return
    rows = [row for row in test.rows if row.kind == PATCH or row.name in (CLEAN, "grey")]
    for victim, detector in test.victims.items():
        columns = [row for row in rows if row.kind != PATCH or victim in row.against] or rows
        pictures = []
        for place in shown:
            places = torch.tensor([place])
            image = images.images(places)
            targets = targets_on(test, detector, images, places, image)
            pictures.append([_scene(test, victim, row, image, targets, params.hidden) for row in columns])
        run.figure(f"examples_{victim}", figures.examples(pictures), title=f"What {victim} finds, with and without")


def _scene(test: TransferTest, victim: str, row: MatrixRow, image: Tensor, targets: Any, hidden: str) -> figures.Scene:
    """One image with one row drawn on it, and the boxes of a victim in it."""
    detector = test.victims[victim]
    with torch.no_grad():
        drawn = image
        if row.pixels is not None:
            drawn = render(test.reproduction.printed(row.pixels), image, targets, test.rendering)
        drawn = test.reproduction.photographed(drawn, None)
    (boxes,) = detector.detect(drawn, test.evaluation.confidence)
    assert boxes.scores is not None
    labels = boxes.labels.tolist()
    return figures.Scene(
        title=figures.title_of(row.name),
        pixels=drawn[0].permute(1, 2, 0).numpy(),
        corners=boxes.corners.numpy(),
        names=[
            f"{detector.classes[label]} {score:.2f}" for label, score in zip(labels, boxes.scores.tolist(), strict=True)
        ],
        of_class=np.array([label == detector.label_of(hidden) for label in labels], bool),
    )
