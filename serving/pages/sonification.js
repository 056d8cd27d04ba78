// A sound that excites a feature of a network that listens: which one, how it is optimised, and what came out.

import { button, choice, element, field, fill, percent, shown } from "./elements.js";
import { optionsPart } from "./options.js";
import { predictions } from "./predictions.js";
import { outputs, request } from "./server.js";
import { soundPlayer, spectrogram, wav } from "./sounds.js";
import { longWork } from "./work.js";

const SVG = "http://www.w3.org/2000/svg";
const NAMED = "sounds,log_mel,start,final,rank,features,dead,curve,prediction,probabilities";
const WORDS = { channel: "a channel", neuron: "a channel at one moment", layer: "all of a layer", class: "a class" };

/** A part of a page. take(clip): a file that sounds may begin with; null: none. */
export function sonificationPart(model, page) {
  const { sonification, settings } = model.parameters;
  const { layers, objectives, parameterisations, parameters } = sonification;
  const names = Object.keys(layers);
  let clip = null;

  const kinds = Object.keys(objectives).filter((name) => !objectives[name].inputs.length);
  const objective = choice(
    kinds.map((name) => [name, WORDS[name] ?? name]),
    "channel",
    fillFields,
  );
  const layer = choice(
    names.map((name) => [name, `${name} (${layers[name]} channels)`]),
    names[Math.min(1, names.length - 1)],
    fillFields,
  );
  const channel = element("input", { type: "number", min: 0, step: 1, value: 0, inputMode: "numeric", required: true });
  const category = choice(
    settings.classes.map((name) => [name, name]),
    settings.classes[0],
  );
  const start = choice(
    [
      ["noise", "noise"],
      ["clip", "the sound above"],
    ],
    "noise",
  );
  const form = choice(
    Object.keys(parameterisations).map((name) => [name, name]),
    Object.keys(parameterisations)[0],
    fillFields,
  );
  const fields = { layer: field("Layer", layer), channel: field("Channel", channel), class: field("Class", category) };
  const meaning = element("p", { class: "note" });
  const optionsPlace = element("div");
  const options = new Map(); // by objective and parameterisation
  const go = button("Sonify", run, { class: "primary" });
  const status = element("p", { class: "status", role: "status" });
  const player = soundPlayer("The sound that was made", page.signal);
  const result = element("div", { class: "sonified" });
  const work = longWork(page, status, result);

  /** The fields that the objective takes. */
  function fillFields() {
    for (const [name, part] of Object.entries(fields)) part.hidden = !objectives[objective.value].takes.includes(name);
    channel.max = layers[layer.value] - 1;
    meaning.textContent = `Excited is ${objectives[objective.value].description}; optimised are ${parameterisations[form.value].description}.`;
    fill(optionsPlace, chosenOptions().part);
  }

  function chosenOptions() {
    const key = `${objective.value} ${form.value}`;
    if (!options.has(key)) {
      const own = { ...objectives[objective.value].parameters, ...parameterisations[form.value].parameters };
      options.set(key, optionsPart("Options", { ...parameters, ...own }, () => {}));
    }
    return options.get(key);
  }

  function asked() {
    const values = {
      objective: objective.value,
      ...(fields.layer.hidden ? {} : { layer: layer.value }),
      ...(fields.channel.hidden ? {} : { channel: channel.valueAsNumber }),
      ...(fields.class.hidden ? {} : { class: category.value }),
      ...(form.value === Object.keys(parameterisations)[0] ? {} : { parameterisation: form.value }),
      ...chosenOptions().values(),
    };
    if (start.value === "clip") return request(model, "sonify", { file: clip, query: { ...values, outputs: NAMED } });
    const message = { parameters: values, outputs: NAMED.split(",").map((name) => ({ name })) };
    return request(model, "sonify", { message });
  }

  async function run() {
    if (!fields.channel.hidden && !channel.reportValidity()) return;
    if (!chosenOptions().valid()) return;
    await work.run("Optimising…", async (signal) => {
      const sent = asked();
      const answer = await outputs(sent, signal);
      draw(answer);
      page.sent(sent);
      return answer.parameters.warning ?? "";
    });
  }

  function draw(answer) {
    const samples = answer.sounds.data.slice(0, answer.sounds.shape[1]);
    const [from, to] = [answer.start.data[0], answer.final.data[0]];
    const unit = answer.parameters.objective === "class" ? "log-probability" : "activation";
    player.load(wav(samples, settings.rate));
    const place = answer.rank.data[0];
    const best = answer.prediction.data[0];
    fill(
      result,
      element("p", { class: "verdict" }, `${unit} ${shown(from)} → ${shown(to)}`),
      player.part,
      element(
        "figure",
        {},
        spectrogram({ data: answer.log_mel.data.slice(0, answer.log_mel.shape[1] * answer.log_mel.shape[2]), shape: answer.log_mel.shape }, "Its spectrogram, low frequencies below"),
        curve(answer.curve.data.slice(0, answer.curve.shape[1]), unit),
        element(
          "figcaption",
          { class: "axis" },
          element("span", {}, "0 s"),
          element("span", {}, `spectrogram, and ${unit} over time`),
          element("span", {}, `${shown(samples.length / settings.rate)} s`),
        ),
      ),
      element(
        "dl",
        {},
        [
          ["Place in the layer", place ? `${place} of ${answer.features.data[0]} by this sound` : null],
          ["Dead", answer.dead.data[0] ? "no real clip excites it" : "no"],
          ["Taken for", `${settings.classes[best]}, ${percent(answer.probabilities.data[best])}`],
        ].flatMap(([name, value]) => (value ? [element("dt", {}, name), element("dd", {}, value)] : [])),
      ),
      predictions(settings.classes, answer.probabilities.data.slice(0, settings.classes.length), "What it is taken for"),
    );
  }

  fillFields();
  take(null);

  function take(file) {
    clip = file;
    work.abort();
    start.disabled = !file;
    if (!file) start.value = "noise";
  }

  const part = element(
    "section",
    { class: "sonification", "aria-labelledby": "sonification-title" },
    element("h3", { id: "sonification-title" }, "Hear what it has learnt"),
    element(
      "div",
      { class: "controls" },
      field("Excite", objective),
      Object.values(fields),
      field("Begin with", start),
      field("Optimise", form),
      element("div", { class: "tools" }, go, work.stop),
    ),
    meaning,
    optionsPlace,
    status,
    result,
  );
  return { part, take };
}

/** Values over time as a line, and where zero is. */
function curve(values, label) {
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const y = (value) => 96 - (92 * (value - low)) / (high - low || 1);
  const x = (at) => (1000 * (at + 0.5)) / values.length;
  const made = document.createElementNS(SVG, "svg");
  const shape = (name, attributes) => {
    const each = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) each.setAttribute(key, value);
    made.append(each);
  };
  made.setAttribute("viewBox", "0 0 1000 100");
  made.setAttribute("preserveAspectRatio", "none");
  made.setAttribute("class", "curve");
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", `${label} over time, from ${shown(Math.min(...values))} to ${shown(Math.max(...values))}`);
  shape("line", { class: "here", x1: 0, x2: 1000, y1: y(0), y2: y(0) });
  const points = values.length > 1 ? values.map((value, at) => `${x(at)},${y(value)}`) : [`0,${y(values[0])}`, `1000,${y(values[0])}`];
  shape("polyline", { class: "line", points: points.join(" ") });
  return made;
}
