// Networks that think in iterations: an instance of the problem, and the answer after each step as an animation.

import { button, choice, element, field, fill, percent, shown } from "../elements.js";
import { events, request, tensor } from "../server.js";
import { bits, mazes } from "./instances.js";
import { show as showTensors } from "./tensors.js";

const FRAME = 90; // milliseconds
const LONGER = 5; // iterations at first: so many times those of training
const SVG = "http://www.w3.org/2000/svg";

export function show(model, place, page) {
  const { problem, trained_iterations: trained } = model.parameters.settings;
  const build = { prefix_sums: bits, mazes }[problem.name];
  if (!build) return showTensors(model, place, page);

  const instance = build(problem.options ?? {}, clear);
  const iterations = element("input", { type: "number", min: 1, max: 10000, value: LONGER * trained });
  const exit = choice(
    [
      ["", "none: all iterations"],
      ["confidence", "the most confident answer"],
      ["unchanged", "an answer that stays"],
    ],
    "",
  );
  const start = button("Think", think, { class: "primary" });
  const stop = button("Stop", () => controller?.abort(), { hidden: true });
  const play = button("Play", () => (timer ? pause() : animate()), { disabled: true });
  const slider = element("input", {
    type: "range",
    min: 1,
    max: 1,
    value: 1,
    disabled: true,
    oninput: () => pause() || view(slider.valueAsNumber - 1),
  });
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
    curve.setAttribute(
      "aria-label",
      `Confidence by iteration; right in ${steps.filter((each) => each.verified.data[0]).length} of ${steps.length}`,
    );
    curve.replaceChildren(
      shape("line", { class: "here", x1: x(step), x2: x(step), y1: 0, y2: height }),
      shape("polyline", { points, class: "line" }),
      ...steps.flatMap((each, at) =>
        each.verified.data[0] ? [shape("circle", { class: "right", cx: x(at), cy: y(at), r: 3 })] : [],
      ),
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
      element(
        "div",
        { class: "controls" },
        instance.controls,
        field("Iterations", iterations, element("span", { class: "readout" }, `trained with ${shown(trained)}`)),
        field("Exit rule", exit),
      ),
      instance.part,
      element("div", { class: "timeline" }, start, stop, play, slider),
      verdict,
      curve,
      details,
    ),
  );
  slider.setAttribute("aria-label", "Iteration");
}
