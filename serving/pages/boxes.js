// Boxes around the objects of a picture, drawn on a canvas so that they can be read at any size of it.

import { element } from "./elements.js";
import { canvas } from "./pictures.js";

const LINE = 2; // pixels of the screen
const TEXT = 12;

/** The colour of a class, as the server draws it: light enough for black text. */
export function colourOf(label) {
  return `hsl(${(360 * (0.33 + 0.27 * label)) % 360} 90% 62%)`;
}

/** The boxes of an answer about one picture, the surest first: { label, name, score, corners } each. */
export function boxesOf(answer, classes) {
  return Array.from({ length: answer.count.data[0] }, (_, place) => {
    const label = answer.labels.data[place];
    return {
      label,
      name: classes[label],
      score: answer.scores.data[place],
      corners: answer.boxes.data.slice(4 * place, 4 * place + 4),
    };
  });
}

/** How many there are of each class, in words. */
export function counted(boxes) {
  const counts = new Map();
  for (const { name } of boxes) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].map(([name, count]) => `${name} ${count}`).join(", ") || "nothing";
}

/** A picture with boxes. title: what it shows, in words. Returns { part, draw(source, boxes), mark(place) }. */
export function boxedPicture(title) {
  const part = canvas(1, 1, { class: "pixels boxed", role: "img" });
  let now = null; // { source, boxes }
  let marked = -1;

  function redraw() {
    if (!now) return;
    const { source, boxes } = now;
    Object.assign(part, { width: source.width, height: source.height });
    const drawing = part.getContext("2d");
    drawing.drawImage(source, 0, 0);
    const scale = part.clientWidth ? part.width / part.clientWidth : 1;
    drawing.font = `600 ${TEXT * scale}px system-ui, sans-serif`;
    drawing.textBaseline = "top";
    boxes.map((box, place) => [box, place]).reverse().forEach(([box, place]) => {
      const [left, top, right, bottom] = box.corners;
      drawing.globalAlpha = marked < 0 || marked === place ? 1 : 0.25;
      drawing.strokeStyle = drawing.fillStyle = colourOf(box.label);
      drawing.lineWidth = LINE * scale;
      drawing.strokeRect(left, top, right - left, bottom - top);
      const text = `${box.name.slice(0, 24)} ${box.score.toFixed(2)}`;
      const [across, down] = [drawing.measureText(text).width + 6 * scale, (TEXT + 4) * scale];
      const x = Math.max(0, Math.min(left, part.width - across));
      const y = top >= down ? top - down : top;
      drawing.fillRect(x, y, across, down);
      drawing.fillStyle = "black";
      drawing.fillText(text, x + 3 * scale, y + 2 * scale);
    });
    drawing.globalAlpha = 1;
  }

  new ResizeObserver(redraw).observe(part);
  part.addEventListener("pointerleave", () => mark(-1));
  part.addEventListener("pointermove", (event) => {
    if (!now) return;
    const place = part.getBoundingClientRect();
    const x = ((event.clientX - place.left) * part.width) / place.width;
    const y = ((event.clientY - place.top) * part.height) / place.height;
    mark(now.boxes.findIndex(({ corners: [l, t, r, b] }) => x >= l && x < r && y >= t && y < b));
  });

  /** Show one box before the others; -1: all alike. */
  function mark(place) {
    if (place === marked) return;
    marked = place;
    redraw();
  }

  function draw(source, boxes) {
    now = { source, boxes };
    marked = -1;
    part.setAttribute("aria-label", `${title}: ${counted(boxes)}`);
    redraw();
  }

  return { part, draw, mark };
}

/** The boxes as a table. mark: called with the place of the one that is pointed at, -1 if none is. */
export function boxesTable(boxes, mark) {
  return element(
    "table",
    { class: "legend" },
    element("thead", {}, element("tr", {}, ...["Class", "Score", "Pixels"].map((name) => element("th", { scope: "col" }, name)))),
    element(
      "tbody",
      {},
      boxes.map(({ label, name, score, corners: [left, top, right, bottom] }, place) => {
        const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
        swatch.style.backgroundColor = colourOf(label);
        return element(
          "tr",
          { onpointerenter: () => mark(place), onpointerleave: () => mark(-1) },
          element("th", { scope: "row" }, swatch, name),
          element("td", { class: "number" }, score.toFixed(2)),
          element("td", { class: "number" }, `${Math.round(right - left)}×${Math.round(bottom - top)}`),
        );
      }),
    ),
  );
}
