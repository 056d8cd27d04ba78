// Attacks by patches: one is drawn on everything of a class, so that it is not seen; boxes before and after.

import { attackSection } from "./attack_section.js";
import { boxedPicture, boxesOf, counted } from "./boxes.js";
import { button, choice, element, field, fill, percent, shown } from "./elements.js";
import { optionsPart } from "./options.js";
import { canvas, changedPart, png } from "./pictures.js";
import { outputs, read, request, send } from "./server.js";
import { longWork } from "./work.js";

const USUAL = "person";
const NAMES = { patch: "Optimise one on this picture", stored_patch: "Draw one that is there" };
const STORED = "stored_patch";
const OF_PATCHES = "patch"; // the task of models that are patches

/**
 * A part of a page. ask: the query for the boxes of a picture. take(seen): what is attacked, { picture, boxes }; null:
 * nothing.
 */
export function patchAttackPart(model, { ask, page }) {
  const { attacks, settings } = model.parameters;
  const kinds = Object.keys(attacks);
  let seen = null;

  const kind = choice(kinds.map((name) => [name, NAMES[name] ?? name]), kinds[0], fillKind);
  const hidden = choice(
    settings.classes.map((name) => [name, name]),
    settings.classes.includes(USUAL) ? USUAL : settings.classes[0],
    () => {},
  );
  const stored = element("select", {});
  const storedField = field("Patch of the store", stored);
  const meaning = element("p", { class: "note" });
  const optionsOf = Object.fromEntries(
    kinds.map((name) => {
      const { class: of, patch, ...others } = attacks[name].parameters;
      return [name, optionsPart("Options", others, () => {})];
    }),
  );
  const optionsPlace = element("div");
  const start = button("Attack", run, { class: "primary", disabled: true });
  const status = element("p", { class: "status", role: "status" });
  const result = element("div", { class: "attacked" });
  const work = longWork(page, status, result);

  function fillKind() {
    const { description } = attacks[kind.value];
    storedField.hidden = kind.value !== STORED;
    meaning.textContent = storedField.hidden || stored.options.length ? description : "The store holds no patch yet.";
    fill(optionsPlace, optionsOf[kind.value].part);
    enable();
  }

  function enable() {
    start.disabled = !seen || (kind.value === STORED && !stored.options.length);
  }

  async function listPatches() {
    try {
      const { models } = await read("/v2/models", page.signal);
      const names = models.filter(({ task }) => task === OF_PATCHES).map(({ name }) => name);
      fill(stored, names.map((name) => element("option", { value: name }, name)));
      fillKind();
    } catch (error) {
      if (error.name !== "AbortError") page.failed(error);
    }
  }

  async function run() {
    if (!optionsOf[kind.value].valid()) return;
    const before = seen;
    const query = { attack: kind.value, class: hidden.value, ...ask(), ...optionsOf[kind.value].values() };
    if (kind.value === STORED) query.patch = stored.value;
    delete query.outputs;
    await work.run("Attacking…", async (signal) => {
      const asked = request(model, "attack", { file: await png(before.picture), query, accept: "image/png" });
      const response = await send(asked, signal);
      const file = await response.blob();
      const said = (name) => response.headers.get(`Assay-${name}`);
      // what is judged is the file that comes back
      const answer = await outputs(request(model, "infer", { file, query: ask() }), signal);
      draw(before, await decoded(file), boxesOf(answer, settings.classes), said, query.class);
      page.sent(asked);
      const passes = Number(said("Queries")) + Number(said("Gradients"));
      return [`${shown(passes)} passes through the detector.`, said("Warning")].filter(Boolean).join(" ");
    });
  }

  function draw(before, after, boxes, said, name) {
    const [targets, gone] = [Number(said("Targets")), Number(said("Hidden"))];
    const sides = [
      ["Before", before.picture, before.boxes],
      ["After", after, boxes],
    ].map(([title, picture, found]) => {
      const view = boxedPicture(title);
      return { title, picture, found, view };
    });
    const first = before.boxes.find((box) => box.name === name);
    const patch = first && changedPart(before.picture, after, first.corners);
    fill(
      result,
      element("p", { class: gone < targets ? "verdict" : "verdict right" }, `${name}: ${gone} of ${targets} hidden`),
      element(
        "p",
        {},
        `${percent(Number(said("Area")))} of the pixels changed. ` +
          `Before, the detector finds ${counted(before.boxes)}; after, ${counted(boxes)}.`,
      ),
      element(
        "div",
        { class: "pair" },
        sides.map(({ title, view }) => element("figure", {}, element("figcaption", {}, title), view.part)),
      ),
      patch && element("figure", { class: "patch" }, patch, element("figcaption", {}, "The patch as it is drawn")),
    );
    for (const { view, picture, found } of sides) view.draw(picture, found);
  }

  fillKind();
  listPatches();
  const controls = [
    field("A patch", kind),
    field("Hide", hidden),
    storedField,
  ];
  const part = attackSection(controls, [start, work.stop], meaning, optionsPlace, status, result);
  return {
    part,
    take(made) {
      work.forget();
      seen = made;
      enable();
      fill(result);
    },
  };
}

/** A picture of a file as a canvas. */
async function decoded(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const made = canvas(bitmap.width, bitmap.height);
  made.getContext("2d").drawImage(bitmap, 0, 0);
  return made;
}
