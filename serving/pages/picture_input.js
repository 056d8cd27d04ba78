// A picture from a person: drawn, chosen, dropped or pasted.

import { button, element, field } from "./elements.js";
import { canvas, invert, prepared } from "./pictures.js";

const SIDE = 280; // pixels of the sheet on which is drawn
const PAUSE = 200; // milliseconds after the last stroke

/**
 * A part of a page. input: of the model, as in `prepared`. changed: called with the prepared picture, and null
 * where there is none any more.
 */
export function pictureInput(input, changed, signal) {
  const grey = input.channels === 1;
  const sheet = canvas(SIDE, SIDE, {
    class: "sheet",
    tabindex: "0",
    role: "application",
    "aria-label": "Drawing area. Arrow keys move the pen, Space sets it down and lifts it.",
  });
  const drawing = sheet.getContext("2d", { willReadFrequently: true });
  const pen = element("input", { type: "color", value: "#ffffff", "aria-label": "Colour of the pen" });
  const size = element("input", {
    type: "range",
    min: 6,
    max: 48,
    value: Math.round(SIDE / (input.width > 0 ? Math.min(input.width, 14) : 14)),
  });
  const chooser = element("input", {
    type: "file",
    accept: "image/*",
    class: "visually-hidden",
    onchange: () => take(chooser.files[0]),
  });
  const model = canvas(1, 1, { class: "pixels", role: "img", "aria-label": "The picture as the model gets it" });
  const caption = element("figcaption", {}, " ");
  const note = element("p", { class: "note", role: "status" });
  let source = null; // the file, or the sheet
  let timer = 0;
  clear();

  function clear() {
    drawing.fillStyle = grey ? "black" : "#20242a";
    drawing.fillRect(0, 0, SIDE, SIDE);
    source = null;
    model.hidden = true;
    caption.textContent = "";
  }

  function update() {
    const made = prepared(source, input);
    const { seen } = made;
    Object.assign(model, { width: seen.width, height: seen.height });
    model.getContext("2d").drawImage(seen, 0, 0);
    model.hidden = false;
    caption.textContent = `${seen.width}×${seen.height} pixels, as the model gets them`;
    changed(made);
  }

  function later() {
    clearTimeout(timer);
    timer = setTimeout(update, PAUSE);
  }

  async function take(file) {
    if (!file) return;
    note.textContent = "";
    try {
      const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
      source = canvas(bitmap.width, bitmap.height);
      source.getContext("2d").drawImage(bitmap, 0, 0);
    } catch {
      note.textContent = `${file.name} is not a picture that this browser reads.`;
      return;
    }
    const scale = Math.min(SIDE / source.width, SIDE / source.height);
    drawing.fillStyle = grey ? "black" : "#20242a";
    drawing.fillRect(0, 0, SIDE, SIDE);
    drawing.imageSmoothingEnabled = scale < 1;
    const [width, height] = [source.width * scale, source.height * scale];
    drawing.drawImage(source, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
    chooser.value = "";
    update();
  }

  // ---- the pen ------------------------------------------------------------------------------------------------------

  let before = null; // where the pen was, while it is down
  let cursor = null; // of the keyboard
  const step = input.width > 0 ? Math.max(4, SIDE / input.width / 2) : 8;

  function stroke(x, y) {
    source = sheet;
    Object.assign(drawing, {
      strokeStyle: pen.value,
      lineWidth: size.valueAsNumber,
      lineCap: "round",
      lineJoin: "round",
    });
    drawing.beginPath();
    drawing.moveTo(...(before ?? [x, y]));
    drawing.lineTo(x + 0.01, y);
    drawing.stroke();
    before = [x, y];
    later();
  }

  function place(event) {
    const box = sheet.getBoundingClientRect();
    return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
  }

  sheet.addEventListener("pointerdown", (event) => {
    sheet.setPointerCapture(event.pointerId);
    before = null;
    stroke(...place(event));
  });
  sheet.addEventListener("pointermove", (event) => {
    if (event.buttons && before) for (const each of event.getCoalescedEvents?.() ?? [event]) stroke(...place(each));
  });
  sheet.addEventListener("pointerup", () => (before = null));

  const mark = element("span", { class: "cursor", hidden: true });
  sheet.addEventListener("blur", () => {
    mark.hidden = true;
    before = null;
  });
  sheet.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    cursor ??= [SIDE / 2, SIDE / 2];
    if (move) cursor = cursor.map((value, axis) => Math.min(SIDE, Math.max(0, value + step * move[axis])));
    else if (before) before = null;
    else stroke(...cursor);
    if (move && before) stroke(...cursor);
    mark.hidden = false;
    mark.classList.toggle("down", before !== null);
    mark.style.left = `${(100 * cursor[0]) / SIDE}%`;
    mark.style.top = `${(100 * cursor[1]) / SIDE}%`;
  });

  // ---- files --------------------------------------------------------------------------------------------------------

  const area = element("div", { class: "sheet-area" }, sheet, mark);
  area.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("over");
  });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  document.addEventListener(
    "paste",
    (event) => take([...event.clipboardData.files].find((file) => file.type.startsWith("image/"))),
    { signal },
  );

  const tools = element(
    "div",
    { class: "tools" },
    button("Upload…", () => chooser.click(), { class: "primary" }),
    button("Invert", () => {
      if (!source) return;
      invert(source);
      if (source !== sheet) invert(sheet);
      update();
    }),
    button("Clear", () => {
      clear();
      changed(null);
    }),
  );
  const part = element(
    "section",
    { class: "input", "aria-label": "Picture" },
    area,
    tools,
    element("div", { class: "tools" }, grey ? null : field("Pen", pen), field("Width of the pen", size)),
    element("figure", { class: "as-model" }, model, caption),
    element("p", { class: "note" }, "Draw, upload, drop or paste a picture."),
    note,
    chooser,
  );
  return { part, update: () => source && update() };
}
