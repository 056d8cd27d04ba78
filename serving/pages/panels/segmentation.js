// Networks that give each pixel a class: the classes over the picture, their areas, and attacks on them.

import { attackPart } from "../attack.js";
import { choice, element, field, fill, percent, shown } from "../elements.js";
import { pictureInput } from "../picture_input.js";
import { canvas, drawClasses, drawTensor, png, tensorOf } from "../pictures.js";
import { outputs, request } from "../server.js";

const LONGEST = [128, 192, 256, 384, 512]; // sides to which a larger picture is scaled
const USUAL = 256;

export function show(model, place, page) {
  const { classes, palette } = model.parameters.settings;
  const [, channels] = model.inputs[0].shape;
  const view = canvas(1, 1, { class: "pixels view", role: "img", "aria-label": "Classes over the picture" });
  const here = element("p", { class: "note", role: "status" }, " ");
  const opacity = element("input", { type: "range", min: 0, max: 100, value: 55, oninput: redraw });
  const legend = element("tbody");
  const result = element(
    "section",
    { class: "result", "aria-label": "Classes" },
    element("p", { class: "note" }, "The classes appear here."),
  );
  const full = [
    element("figure", {}, view, element("figcaption", {}, here)),
    field("Classes over the picture", opacity),
    element(
      "table",
      { class: "legend" },
      element(
        "thead",
        {},
        element("tr", {}, ...["Class", "Area", "Confidence"].map((name) => element("th", { scope: "col" }, name))),
      ),
      legend,
    ),
  ];
  let shownNow = null; // { tensor, labels }
  let controller = null;

  const attack =
    model.parameters.actions.includes("attack") &&
    attackPart(model, {
      classes,
      named: ["labels", "adversarial_labels", "mean_iou", "adversarial_mean_iou", "share"],
      page,
      show: describe,
    });

  async function describe({ before, after }, answer) {
    const pictures = [
      [before, answer.labels.data],
      [after, answer.adversarial_labels.data],
    ].map(([tensor, labels]) => {
      const made = canvas(1, 1, { class: "pixels", role: "img", "aria-label": "Its classes" });
      drawTensor(made, tensor);
      drawClasses(made, labels, palette, opacity.valueAsNumber / 100);
      return made;
    });
    const changed = answer.labels.data.filter((label, at) => label !== answer.adversarial_labels.data[at]).length;
    return {
      sentence: `${percent(changed / answer.labels.data.length)} of the pixels changed their class; mean IoU with what was predicted before: ${shown(answer.adversarial_mean_iou.data[0])}`,
      before: pictures[0],
      after: pictures[1],
    };
  }

  function redraw() {
    if (!shownNow) return;
    drawTensor(view, shownNow.tensor);
    drawClasses(view, shownNow.labels, palette, opacity.valueAsNumber / 100);
  }

  view.addEventListener("pointermove", (event) => {
    if (!shownNow) return;
    const box = view.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) * view.width) / box.width);
    const row = Math.floor(((event.clientY - box.top) * view.height) / box.height);
    const label = shownNow.labels[row * view.width + column];
    if (label !== undefined) here.textContent = `${column}, ${row}: ${classes[label]}`;
  });

  async function changed(picture) {
    controller?.abort();
    controller = new AbortController();
    attack && attack.take(picture);
    if (!picture) return;
    result.classList.add("stale");
    try {
      const asked = request(model, "infer", {
        file: await png(picture.sent),
        query: { outputs: "labels,areas,class_confidence" },
      });
      const answer = await outputs(asked, AbortSignal.any([controller.signal, page.signal]));
      shownNow = { tensor: tensorOf(picture.seen, channels), labels: answer.labels.data };
      const order = [...classes.keys()].sort((one, other) => answer.areas.data[other] - answer.areas.data[one]);
      fill(
        legend,
        order
          .filter((index) => answer.areas.data[index] > 0)
          .map((index) => {
            const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
            swatch.style.backgroundColor = `rgb(${palette[index].join(",")})`;
            return element(
              "tr",
              {},
              element("th", { scope: "row" }, swatch, classes[index]),
              element("td", { class: "number" }, percent(answer.areas.data[index])),
              element("td", { class: "number" }, percent(answer.class_confidence.data[index])),
            );
          }),
      );
      fill(result, full);
      redraw();
      page.sent(asked);
    } catch (error) {
      if (error.name !== "AbortError") page.failed(error);
    } finally {
      result.classList.remove("stale");
    }
  }

  const prepared = { channels, height: -1, width: -1, longest: USUAL };
  const input = pictureInput(prepared, changed, page.signal);
  const longest = choice(
    LONGEST.map((side) => [String(side), `${side} pixels`]),
    String(USUAL),
    () => {
      prepared.longest = Number(longest.value);
      input.update();
    },
  );
  input.part.append(field("Scaled to at most", longest));
  fill(place, element("div", { class: "try" }, input.part, result), attack && attack.part);
}
