// An attack on a model that takes pictures: its settings, and the perturbation beside what it was added to.

import { attackSection } from "./attack_section.js";
import { button, choice, element, field, fill, shown } from "./elements.js";
import { optionsPart } from "./options.js";
import { canvas, drawDifference, drawTensor, png, tensorOf } from "./pictures.js";
import { request, outputs } from "./server.js";
import { longWork } from "./work.js";

const DEFAULT = "pgd";
// of the slider: per pixel, for L2 by the root of their number, for L0 the share of them that changes
const LARGEST = { Linf: 0.3, L2: 0.05, L1: 0.03, L0: 0.15 };
const NORMS = { Linf: "L∞", L2: "L2", L1: "L1", L0: "L0" };
const STEPS = 200;

/** The largest radius of the slider. count: numbers in a picture. */
function largest(norm, count) {
  const scale = { Linf: 1, L2: Math.sqrt(count), L1: count, L0: count }[norm];
  return Number((LARGEST[norm] * scale).toPrecision(1));
}

/**
 * A part of a page. model: with parameters. named: the outputs that the answer has beside the adversarials. show: what
 * is shown of them, as show({ before, after }, answer) -> { sentence, before, after }, elements under the pictures.
 */
export function attackPart(model, { classes, named, show, page }) {
  const { attacks, settings } = model.parameters;
  const kinds = Object.keys(attacks);
  let picture = null; // as it is prepared
  let done = false; // an attack was asked for: changes ask again
  let own = false; // the radius was chosen: it stays when the first picture comes

  const kind = choice(
    kinds.map((name) => [name, name]),
    DEFAULT,
    () => fillKind() || again(),
  );
  const meaning = element("p", { class: "note" });
  const optionsOf = Object.fromEntries(
    kinds.map((name) => [name, optionsPart(`Options of ${name}`, attacks[name].parameters, again)]),
  );
  const optionsPlace = element("div");
  const norm = element("select", { onchange: () => fillUsual() || again() });
  const slider = element("input", {
    type: "range",
    min: 0,
    max: STEPS,
    oninput: () => {
      own = true;
      setEpsilon((slider.valueAsNumber / STEPS) * most, true);
    },
    onchange: again,
  });
  const number = element("input", {
    type: "number",
    min: 0,
    step: "any",
    inputMode: "decimal",
    "aria-label": "Radius epsilon, as a number",
    oninput: () => void (own = true),
    onchange: () => setEpsilon(number.valueAsNumber || 0) || again(),
  });
  const readout = element("output", { class: "readout" });
  const target = choice([["", "any other class"], ...classes.map((name, index) => [String(index), name])], "", again);
  const start = button("Attack", run, { class: "primary", disabled: true });
  const status = element("p", { class: "status", role: "status" });
  const result = element("div", { class: "attacked" });
  const work = longWork(page, status, result);
  let most = 1;

  /** What the chosen attack is, and the fields that are its own. */
  function fillKind() {
    const before = norm.value;
    const chosen = before || settings.norm || "Linf";
    const { norms, description } = attacks[kind.value];
    meaning.textContent = description;
    fill(optionsPlace, optionsOf[kind.value].part);
    fill(
      norm,
      norms.map((name) => element("option", { value: name, selected: name === chosen }, NORMS[name])),
    );
    if (norm.value !== before) fillUsual();
  }

  function fillUsual() {
    own = false;
    fillRange();
  }

  /** What the slider reaches for such a picture, and the usual radius where none was chosen. */
  function fillRange() {
    most = largest(norm.value, picture ? tensorSize() : 64);
    if (own) return setEpsilon(number.valueAsNumber || 0);
    const card = norm.value === settings.norm && settings.epsilon > 0 ? settings.epsilon : 0;
    const usual = norm.value === "Linf" ? (model.inputs[0].shape[1] === 1 ? 0.1 : 8 / 255) : most / 4;
    setEpsilon(card || usual);
  }

  function tensorSize() {
    return model.inputs[0].shape[1] * picture.seen.width * picture.seen.height;
  }

  function setEpsilon(value, slid = false) {
    const epsilon = norm.value === "L0" ? Math.max(1, Math.round(value)) : Number(Math.max(0, value).toPrecision(4));
    number.value = epsilon;
    if (!slid) slider.value = Math.min(STEPS, (epsilon / most) * STEPS);
    readout.textContent =
      norm.value === "Linf"
        ? `${shown(Number((255 * epsilon).toPrecision(3)))} of 255 for each pixel`
        : norm.value === "L0"
          ? "numbers of the picture may change, of a coloured pixel each channel for itself"
          : `${NORMS[norm.value]} norm of the whole`;
  }

  function again() {
    if (done && picture) run();
  }

  async function run() {
    if (!optionsOf[kind.value].valid()) return;
    const query = {
      attack: kind.value,
      norm: norm.value,
      epsilon: number.valueAsNumber || 0,
      ...optionsOf[kind.value].values(),
      ...(target.value && { target: Number(target.value) }),
      outputs: ["adversarials", ...named, "distance", "queries", "gradients"].join(","),
    };
    const original = picture;
    done = true;
    await work.run("Attacking…", async (signal) => {
      const asked = request(model, "attack", { file: await png(original.sent), query });
      const answer = await outputs(asked, signal);
      await draw(original, answer, signal);
      page.sent(asked);
      const passes = answer.queries.data[0] + answer.gradients.data[0];
      return `${shown(passes)} passes through the model. ${answer.parameters.warning ?? ""}`;
    });
  }

  async function draw(original, answer, signal) {
    const before = tensorOf(original.seen, model.inputs[0].shape[1]);
    const after = { data: answer.adversarials.data, shape: before.shape };
    const pictures = ["Original", "Perturbation", "Adversarial"].map((title) => [
      title,
      canvas(1, 1, { class: "pixels", role: "img", "aria-label": title }),
    ]);
    drawTensor(pictures[0][1], before);
    const peak = drawDifference(pictures[1][1], before, after);
    drawTensor(pictures[2][1], after);
    const parts = await show({ before, after }, answer, signal);
    const scale = peak ? `, ×${shown(Number((0.5 / peak).toPrecision(2)))}` : "";
    const under = [
      parts.before,
      element(
        "p",
        {},
        peak
          ? `Grey is no change; white and black are ±${shown(Number(peak.toPrecision(3)))}. ${NORMS[norm.value]} norm ${shown(answer.distance.data[0])}.`
          : "Nothing was changed.",
      ),
      parts.after,
    ];
    fill(
      result,
      element("p", { class: "verdict" }, parts.sentence),
      element(
        "div",
        { class: "triple" },
        pictures.map(([title, made], place) =>
          element("figure", {}, made, element("figcaption", {}, title, place === 1 ? scale : ""), under[place]),
        ),
      ),
    );
  }

  fillKind();
  const controls = [
    field("Attack", kind),
    field("Norm", norm),
    element(
      "div",
      { class: "field wide" },
      element("label", { for: (slider.id = "epsilon") }, "Radius ε"),
      element("div", { class: "slide" }, slider, number),
      readout,
    ),
    field("To be taken for", target),
  ];
  const part = attackSection(controls, [start, work.stop], meaning, optionsPlace, status, result);
  return {
    part,
    take(made) {
      const first = picture === null;
      picture = made;
      work.forget();
      done = false;
      start.disabled = !made;
      fill(result);
      if (first && made) fillRange();
    },
  };
}
