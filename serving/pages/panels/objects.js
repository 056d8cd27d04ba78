// Detectors of objects: boxes around what they see in a picture, and patches that hide something from them.

import { boxedPicture, boxesOf, boxesTable, counted } from "../boxes.js";
import { choice, element, field, fill } from "../elements.js";
import { patchAttackPart } from "../patch_attack.js";
import { pictureInput } from "../picture_input.js";
import { png } from "../pictures.js";
import { outputs, request } from "../server.js";

const LONGEST = [320, 640, 1024, 2048, 4096]; // sides to which a larger picture is scaled
const USUAL = 1024;
const LISTED = 20; // boxes in the table
const CONFIDENCE = 0.3;
const OVERLAP = 0.45;

export function show(model, place, page) {
  const { classes, confidence: usual = CONFIDENCE } = model.parameters.settings;
  const confidence = shareField("Least score", usual, 0.01, 0.99, again);
  const overlap = shareField("Overlap of two boxes of a class, at most", OVERLAP, 0.05, 1, again);
  const view = boxedPicture("The picture");
  const summary = element("p", { class: "verdict" });
  const list = element("div");
  const result = element(
    "section",
    { class: "result", "aria-live": "polite", "aria-label": "Objects" },
    element("p", { class: "note" }, "The objects appear here."),
  );
  let picture = null;
  let controller = null;

  const query = () => ({
    outputs: "boxes,labels,scores,count",
    confidence: confidence.value(),
    overlap: overlap.value(),
  });
  const attack = model.parameters.actions.includes("attack") && patchAttackPart(model, { ask: query, page });

  async function ask() {
    controller?.abort();
    controller = new AbortController();
    attack && attack.take(null);
    result.classList.add("stale");
    try {
      const asked = request(model, "infer", { file: await png(picture.sent), query: query() });
      const answer = await outputs(asked, AbortSignal.any([controller.signal, page.signal]));
      const boxes = boxesOf(answer, classes);
      summary.textContent = boxes.length ? counted(boxes) : "Nothing is found.";
      fill(
        list,
        boxes.length > 0 && boxesTable(boxes.slice(0, LISTED), view.mark),
        boxes.length > LISTED && element("p", { class: "note" }, `and ${boxes.length - LISTED} more`),
      );
      fill(result, summary, view.part, list);
      view.draw(picture.sent, boxes);
      page.sent(asked);
      attack && attack.take({ picture: picture.sent, boxes });
    } catch (error) {
      if (error.name !== "AbortError") page.failed(error);
    } finally {
      result.classList.remove("stale");
    }
  }

  function again() {
    if (picture) ask();
  }

  function changed(made) {
    controller?.abort();
    attack && attack.take(null);
    picture = made;
    again();
  }

  const prepared = { channels: 3, height: -1, width: -1, longest: USUAL };
  const input = pictureInput(prepared, changed, page.signal);
  const longest = choice(
    LONGEST.map((side) => [String(side), `${side} pixels`]),
    String(USUAL),
    () => {
      prepared.longest = Number(longest.value);
      input.update();
    },
  );
  input.part.append(field("Scaled to at most", longest), confidence.part, overlap.part);
  fill(place, element("div", { class: "try" }, input.part, result), attack && attack.part);
}

/** A field for a share: { part, value() }. */
function shareField(label, value, least, most, changed) {
  const readout = element("output", { class: "readout" }, value.toFixed(2));
  const input = element("input", {
    type: "range",
    min: least,
    max: most,
    step: 0.01,
    oninput: () => (readout.textContent = input.valueAsNumber.toFixed(2)),
    onchange: changed,
  });
  input.value = value;
  return { part: field(label, input, readout), value: () => input.valueAsNumber };
}
