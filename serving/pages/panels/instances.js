// Instances of the problems that networks think about: made and changed by a person, and drawn with an answer.
// Each is { part, controls, tensor(), answer(prediction) }; `changed` is called when it is another one.

import { button, element, field, fill } from "../elements.js";
import { canvas, drawTensor } from "../pictures.js";

const ANSWER = "rgb(66 133 244 / 0.75)";
const LONGEST = 512; // bits
const LARGEST = 99; // side of a maze

/** A string of bits, each minus one half; the answer is a row below it. */
export function bits(options, changed) {
  const text = element("input", {
    class: "bits-text",
    value: "1001100101101001",
    pattern: "[01]+",
    spellcheck: false,
    autocomplete: "off",
    oninput: rebuild,
  });
  const length = element("input", { type: "number", min: 1, max: LONGEST, value: 16, onchange: random });
  const part = element("div", { class: "bits", role: "group", "aria-label": "Bits; the answer is below each" });
  let cells = [];

  function values() {
    return [...text.value].map(Number);
  }

  function rebuild() {
    text.value = text.value.replace(/[^01]/g, "") || "0";
    length.value = text.value.length;
    cells = values().map((bit, at) => {
      const answer = element("span", { class: "answer-bit" }, " ");
      const toggle = button(
        String(bit),
        () => {
          text.value = text.value.slice(0, at) + (1 - values()[at]) + text.value.slice(at + 1);
          rebuild();
          cells[at].toggle.focus();
        },
        { class: bit ? "bit one" : "bit", "aria-pressed": String(Boolean(bit)), "aria-label": `Bit ${at + 1}` },
      );
      return { toggle, answer, cell: element("span", { class: "cell" }, toggle, answer) };
    });
    fill(
      part,
      cells.map(({ cell }) => cell),
    );
    changed();
  }

  function random() {
    const count = Math.min(LONGEST, Math.max(1, length.valueAsNumber || 16));
    text.value = Array.from({ length: count }, () => Number(Math.random() < 0.5)).join("");
    rebuild();
  }

  queueMicrotask(rebuild);
  return {
    part,
    controls: [
      field("Bits", text),
      field("Length", length),
      element("div", { class: "tools" }, button("Random", random)),
    ],
    tensor: () => ({ data: values().map((bit) => bit - 0.5), shape: [1, values().length] }),
    answer(prediction) {
      cells.forEach(({ answer }, at) => {
        if (answer.textContent !== String(prediction[at])) answer.textContent = prediction[at];
        answer.classList.toggle("one", prediction[at] === 1);
      });
    },
  };
}

/** A maze as a picture: walls black, corridors white, the start green and the end red; the answer is the path. */
export function mazes({ scale = 2 }, changed) {
  const size = element("input", { type: "number", min: 3, max: LARGEST, step: 2, value: 13, onchange: random });
  const view = canvas(1, 1, {
    class: "pixels maze",
    role: "img",
    "aria-label": "Maze, with the path that the network marks",
  });
  let made = null;

  function random() {
    const side = Math.min(LARGEST, Math.max(3, Math.floor((size.valueAsNumber || 13) / 2) * 2 + 1));
    size.value = side;
    made = scaled(carved(side), side + 2, scale);
    drawTensor(view, made);
    changed();
  }

  queueMicrotask(random);
  return {
    part: view,
    controls: [field("Size", size), element("div", { class: "tools" }, button("Another", random))],
    tensor: () => ({ data: [...made.data], shape: made.shape }),
    answer(prediction) {
      drawTensor(view, made);
      const drawing = view.getContext("2d");
      drawing.fillStyle = ANSWER;
      prediction.forEach(
        (marked, at) => marked && drawing.fillRect(at % view.width, Math.floor(at / view.width), 1, 1),
      );
    },
  };
}

/** A perfect maze by a depth-first search: [channels][place] on a square of size + 2 pixels a side. */
function carved(size) {
  const [cells, side] = [(size + 1) / 2, size + 2];
  const open = new Float32Array(side * side);
  const at = (cell) => (2 * Math.floor(cell / cells) + 1) * side + 2 * (cell % cells) + 1;
  const random = (count) => Math.floor(Math.random() * count);
  const start = random(cells * cells);
  const stack = [start];
  open[at(start)] = 1;
  while (stack.length) {
    const cell = stack.at(-1);
    const [row, column] = [Math.floor(cell / cells), cell % cells];
    const free = [
      [row - 1, column],
      [row + 1, column],
      [row, column - 1],
      [row, column + 1],
    ]
      .filter(([r, c]) => r >= 0 && c >= 0 && r < cells && c < cells && !open[at(r * cells + c)])
      .map(([r, c]) => r * cells + c);
    if (!free.length) {
      stack.pop();
      continue;
    }
    const next = free[random(free.length)];
    open[at(next)] = open[(at(cell) + at(next)) / 2] = 1;
    stack.push(next);
  }
  const end = (start + 1 + random(cells * cells - 1)) % (cells * cells);
  const [red, green, blue] = [open.slice(), open.slice(), open.slice()];
  [red[at(start)], blue[at(start)], green[at(end)], blue[at(end)]] = [0, 0, 0, 0];
  return [red, green, blue];
}

/** A maze as the network takes it: with scale 2 every pixel doubled and one black pixel around. */
function scaled(channels, side, scale) {
  if (scale === 1) return { data: channels.flatMap((channel) => [...channel]), shape: [3, side, side] };
  const full = 2 * side + 2;
  const data = channels.flatMap((channel) =>
    Array.from({ length: full * full }, (_, at) => {
      const [row, column] = [Math.floor(at / full) - 1, (at % full) - 1];
      const inside = row >= 0 && column >= 0 && row < 2 * side && column < 2 * side;
      return inside ? channel[(row >> 1) * side + (column >> 1)] : 0;
    }),
  );
  return { data, shape: [3, full, full] };
}
