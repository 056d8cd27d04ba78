// Networks that think in iterations: an instance of the problem, and the answer after each step as an animation.

import { button, choice, element, field, fill, percent, shown } from "../elements.js";
import { canvas, drawTensor } from "../pictures.js";
import { events, request, tensor } from "../server.js";
import { show as showTensors } from "./tensors.js";

const FRAME = 90; // milliseconds
const ANSWER = "rgb(66 133 244 / 0.75)";
const LONGER = 5; // iterations at first: so many times those of training
const SVG = "http://www.w3.org/2000/svg";

export function show(model, place, page) {
  const { problem, trained_iterations: trained } = model.parameters.settings;
  const build = { prefix_sums: bits, mazes }[problem.name];
  if (!build) return showTensors(model, place, page);

  const instance = build(problem.options ?? {}, clear);
  const iterations = element("input", { type: "number", min: 1, max: 10000, value: LONGER * trained });
  const exit = choice(
    [["", "none: all iterations"], ["confidence", "the most confident answer"], ["unchanged", "an answer that stays"]],
    "",
  );
  const start = button("Think", think, { class: "primary" });
  const stop = button("Stop", () => controller?.abort(), { hidden: true });
  const play = button("Play", () => (timer ? pause() : animate()), { disabled: true });
  const slider = element("input", { type: "range", min: 1, max: 1, value: 1, disabled: true, oninput: () => pause() || view(slider.valueAsNumber - 1) });
  const verdict = element("p", { class: "verdict", role: "status" }, " ");
  const details = element("p", { class: "note" }, " ");
  const curve = document.createElementNS(SVG, "svg");
  let steps = []; // the answers so far
  let last = null; // the one that `infer` would give
  let controller = null;
  let timer = 0;

  function clear() {
    controller?.abort();
    pause();
    [steps, last] = [[], null];
    slider.disabled = play.disabled = true;
    verdict.textContent = details.textContent = " ";
    curve.replaceChildren();
  }

  function pause() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  }

  function animate() {
    if (slider.valueAsNumber >= steps.length) view(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      if (slider.valueAsNumber >= steps.length) {
        if (!controller) pause();
        return;
      }
      view(slider.valueAsNumber);
    }, FRAME);
  }

  /** Show the answer after step + 1 iterations. */
  function view(step) {
    const answer = steps[step];
    if (!answer) return;
    slider.value = step + 1;
    slider.setAttribute("aria-valuetext", `iteration ${step + 1} of ${steps.length}`);
    instance.answer(answer.prediction.data);
    const before = steps[step - 1]?.prediction.data;
    const changed = before ? answer.prediction.data.filter((value, at) => value !== before[at]).length : null;
    verdict.textContent = `Iteration ${step + 1} of ${steps.length}: ${answer.verified.data[0] ? "right" : "not right"}`;
    verdict.classList.toggle("right", answer.verified.data[0]);
    const chosen = last ? ` The answer given is that of iteration ${last.iterations.data[0]}.` : "";
    details.textContent = `Confidence ${percent(answer.confidence.data[0])}${changed === null ? "" : `, ${changed} positions changed`}.${chosen}`;
    draw(step);
  }

  /** Confidence by iteration; a dot on each right answer, and a line at the one that is shown. */
  function draw(step) {
    const [width, height] = [curve.clientWidth || 600, 80];
    const x = (at) => (steps.length > 1 ? (at / (steps.length - 1)) * (width - 8) : 0) + 4;
    const y = (at) => height - 6 - (height - 12) * steps[at].confidence.data[0];
    const shape = (name, attributes) => {
      const made = document.createElementNS(SVG, name);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      return made;
    };
    const points = steps.map((_, at) => `${x(at)},${y(at)}`).join(" ");
    curve.setAttribute("viewBox", `0 0 ${width} ${height}`);
    curve.setAttribute("class", "curve");
    curve.setAttribute("role", "img");
    curve.setAttribute("aria-label", `Confidence by iteration; right in ${steps.filter((each) => each.verified.data[0]).length} of ${steps.length}`);
    curve.replaceChildren(
      shape("line", { class: "here", x1: x(step), x2: x(step), y1: 0, y2: height }),
      shape("polyline", { points, class: "line" }),
      ...steps.flatMap((each, at) => (each.verified.data[0] ? [shape("circle", { class: "right", cx: x(at), cy: y(at), r: 3 })] : [])),
    );
  }

  async function think() {
    clear();
    const mine = (controller = new AbortController());
    const { data, shape } = instance.tensor();
    const parameters = { iterations: iterations.valueAsNumber || trained };
    if (exit.value) parameters.exit = exit.value;
    const message = { inputs: [tensor(model.inputs[0].name, [1, ...shape], data)], parameters };
    const asked = request(model, "infer_stream", { message });
    const moving = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    stop.hidden = false;
    page.sent(asked);
    try {
      for await (const [event, answer] of events(asked, AbortSignal.any([mine.signal, page.signal]))) {
        if (event === "answer") last = answer;
        else steps.push(answer);
        slider.max = steps.length;
        if (steps.length === 1 && event === "iteration") {
          slider.disabled = play.disabled = false;
          view(0);
          if (moving) animate();
        }
      }
      view(moving ? slider.valueAsNumber - 1 : last.iterations.data[0] - 1);
    } catch (error) {
      if (error.name !== "AbortError") page.failed(error);
    } finally {
      if (controller === mine) controller = null;
      stop.hidden = true;
    }
  }

  page.signal.addEventListener("abort", clear);
  fill(
    place,
    element(
      "section",
      { class: "instance", "aria-label": "Instance" },
      element("div", { class: "controls" }, instance.controls, field("Iterations", iterations, element("span", { class: "readout" }, `trained with ${shown(trained)}`)), field("Exit rule", exit)),
      instance.part,
      element("div", { class: "timeline" }, start, stop, play, slider),
      verdict,
      curve,
      details,
    ),
  );
  slider.setAttribute("aria-label", "Iteration");
}

/** A string of bits, each minus one half; the answer is a row below it. */
function bits(options, changed) {
  const text = element("input", { class: "bits-text", value: "1001100101101001", pattern: "[01]+", spellcheck: false, autocomplete: "off", oninput: rebuild });
  const length = element("input", { type: "number", min: 1, max: 512, value: 16, onchange: random });
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
      const toggle = button(String(bit), () => {
        text.value = text.value.slice(0, at) + (1 - values()[at]) + text.value.slice(at + 1);
        rebuild();
        cells[at].toggle.focus();
      }, { class: bit ? "bit one" : "bit", "aria-pressed": String(Boolean(bit)), "aria-label": `Bit ${at + 1}` });
      return { toggle, answer, cell: element("span", { class: "cell" }, toggle, answer) };
    });
    fill(part, cells.map(({ cell }) => cell));
    changed();
  }

  function random() {
    const count = Math.min(512, Math.max(1, length.valueAsNumber || 16));
    text.value = Array.from({ length: count }, () => Number(Math.random() < 0.5)).join("");
    rebuild();
  }

  queueMicrotask(rebuild);
  return {
    part,
    controls: [field("Bits", text), field("Length", length), element("div", { class: "tools" }, button("Random", random))],
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
function mazes({ scale = 2 }, changed) {
  const size = element("input", { type: "number", min: 3, max: 99, step: 2, value: 13, onchange: random });
  const view = canvas(1, 1, { class: "pixels maze", role: "img", "aria-label": "Maze, with the path that the network marks" });
  let made = null;

  function random() {
    const side = Math.min(99, Math.max(3, Math.floor((size.valueAsNumber || 13) / 2) * 2 + 1));
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
      prediction.forEach((marked, at) => marked && drawing.fillRect(at % view.width, Math.floor(at / view.width), 1, 1));
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
    const free = [[row - 1, column], [row + 1, column], [row, column - 1], [row, column + 1]]
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
