// Databases of songs: which song a sound is from and where in it, and attacks on its fingerprint.

import { attackSection } from "../attack_section.js";
import { button, choice, element, field, fill, percent, shown } from "../elements.js";
import { optionsPart } from "../options.js";
import { peaksPicture } from "../peaks.js";
import { outputs, request, send } from "../server.js";
import { soundChooser, soundPlayer } from "../sounds.js";
import { longWork } from "../work.js";

const MATCH = "song,confidence,seconds,best,aligned,hashes,runner_up,runner_up_aligned,spectrogram,peaks";
const STEPS = 200; // of the slider
const UNITS = { Linf: "of full scale, in each sample", RMS: "of full scale, root mean square", masking: "times what the sound hides" };
const LARGEST = { Linf: 0.2, RMS: 0.1, masking: 10 };
const USUAL = { Linf: 0.05, RMS: 0.03, masking: 2 };

export function show(model, place, page) {
  const { names, rate } = model.parameters.settings;
  const result = element("section", { class: "result", "aria-live": "polite", "aria-label": "Match" });
  const picture = element("div");
  let controller = null;

  async function changed(sound) {
    controller?.abort();
    controller = new AbortController();
    attack && attack.take(null);
    const signal = AbortSignal.any([controller.signal, page.signal]);
    try {
      const asked = request(model, "infer", { file: sound, query: { outputs: MATCH } });
      const answer = await outputs(asked, signal);
      fill(result, description(answer, model));
      fill(picture, peaksPicture(answer, rate, "The sound"));
      page.sent(asked);
      attack && attack.take({ sound, answer });
    } catch (error) {
      if (error.name !== "AbortError") page.failed(error);
    }
  }

  const attack = model.parameters.actions.includes("attack") && attackPart(model, page);
  fill(result, element("p", { class: "note" }, "The song appears here."));
  const player = soundPlayer("The sound", page.signal);
  const chooser = soundChooser((sound) => {
    player.load(sound);
    changed(sound);
  });
  fill(
    place,
    element("div", { class: "try" }, element("div", {}, chooser, player.part), element("div", { class: "result" }, result, picture)),
    attack && attack.part,
  );
}

/** Which song it is, in words. */
function description(answer, model) {
  const { names } = model.parameters.settings;
  const [song, best, next] = ["song", "best", "runner_up"].map((name) => answer[name].data[0]);
  const [aligned, hashes, nextAligned] = ["aligned", "hashes", "runner_up_aligned"].map((name) => answer[name].data[0]);
  const sentences = [];
  if (song >= 0) sentences.push(`It begins ${time(answer.seconds.data[0])} into the song.`);
  else if (best >= 0) sentences.push(`The nearest is ${names[best]}.`);
  if (best >= 0) {
    const { threshold } = model.parameters.metrics;
    sentences.push(`${shown(aligned)} of ${shown(hashes)} hashes agree; more than ${shown(threshold)} have to.`);
  }
  sentences.push(next >= 0 ? `Next is ${names[next]} with ${shown(nextAligned)}.` : "No other song has one of them.");
  return [
    element(
      "p",
      { class: "answer" },
      song >= 0 ? names[song] : `In none of the ${shown(names.length)} songs`,
      song >= 0 && element("span", {}, percent(answer.confidence.data[0])),
    ),
    element("p", {}, sentences.join(" ")),
    song >= 0 &&
      element(
        "p",
        { class: "note" },
        "The percentage is the share of sounds from outside of the database that are less like any song.",
      ),
    answer.parameters.warning && element("p", { class: "note" }, `Note: ${answer.parameters.warning}.`),
  ];
}

function time(seconds) {
  return `${seconds.toFixed(1)} s`;
}

function attackPart(model, page) {
  const { attacks, settings } = model.parameters;
  const kinds = Object.keys(attacks);
  let heard = null; // the sound, and what was answered about it

  const kind = choice(kinds.map((name) => [name, name]), kinds[0], fillKind);
  const norm = choice(attacks[kinds[0]].norms.map((name) => [name, name === "Linf" ? "L∞" : name]), "Linf", fillRange);
  const meaning = element("p", { class: "note" });
  const optionsOf = Object.fromEntries(
    kinds.map((name) => [name, optionsPart(`Options of ${name}`, attacks[name].parameters, () => {})]),
  );
  const optionsPlace = element("div");
  const slider = element("input", {
    type: "range",
    min: 1,
    max: STEPS,
    id: "epsilon",
    oninput: () => (number.value = Number(((slider.valueAsNumber / STEPS) * LARGEST[norm.value]).toPrecision(3))),
  });
  const number = element("input", {
    type: "number",
    min: 0,
    step: "any",
    inputMode: "decimal",
    "aria-label": "Size epsilon, as a number",
    onchange: () => (slider.value = (number.valueAsNumber / LARGEST[norm.value]) * STEPS),
  });
  const unit = element("output", { class: "readout" });
  const start = button("Attack", run, { class: "primary", disabled: true });
  const status = element("p", { class: "status", role: "status" });
  const result = element("div", { class: "attacked" });
  const work = longWork(page, status, result);

  function fillKind() {
    meaning.textContent = attacks[kind.value].description;
    fill(optionsPlace, optionsOf[kind.value].part);
  }

  function fillRange() {
    number.value = USUAL[norm.value];
    slider.value = (USUAL[norm.value] / LARGEST[norm.value]) * STEPS;
    unit.textContent = UNITS[norm.value];
  }

  async function run() {
    if (!optionsOf[kind.value].valid()) return;
    const { sound, answer: before } = heard;
    const query = {
      attack: kind.value,
      norm: norm.value,
      epsilon: number.valueAsNumber || 0,
      ...optionsOf[kind.value].values(),
    };
    await work.run("Attacking…", async (signal) => {
      const asked = request(model, "attack", { file: sound, query, accept: "audio/wav" });
      const response = await send(asked, signal);
      const changed = await response.blob();
      const said = (name) => Number(response.headers.get(`Assay-${name}`));
      // what is judged is the file that comes back
      const again = request(model, "infer", { file: changed, query: { outputs: MATCH } });
      const after = await outputs(again, signal);
      draw(sound, before, changed, after, { overlap: said("Overlap"), linf: said("Linf"), snr: said("Snr") });
      page.sent(asked);
      return `${shown(said("Queries") + said("Gradients"))} passes through the fingerprint.`;
    });
  }

  function draw(sound, before, changed, after, { overlap, linf, snr }) {
    const name = (answer) => {
      const song = answer.song.data[0];
      return song >= 0 ? settings.names[song] : "in no song";
    };
    const figure = (title, file, answer, other) => {
      const player = soundPlayer(title, page.signal);
      player.load(file);
      return element(
        "figure",
        {},
        element("figcaption", {}, title),
        player.part,
        peaksPicture(answer, settings.rate, title, other),
        description(answer, model)[1],
      );
    };
    fill(
      result,
      element(
        "p",
        { class: "verdict" },
        name(before) === name(after)
          ? `Still ${name(after)}: the database withstands this attack.`
          : `${name(before)} → ${name(after)}`,
      ),
      element(
        "p",
        {},
        `${percent(overlap)} of the peaks are left. No sample changed by more than ${shown(Number(linf.toPrecision(3)))} of full scale; ` +
          `the sound is ${snr.toFixed(1)} dB above the change.`,
      ),
      element("div", { class: "pair" }, figure("Original", sound, before, after), figure("Adversarial", changed, after, before)),
    );
  }

  fillKind();
  fillRange();
  const controls = [
    field("Attack", kind),
    field("Norm", norm),
    element(
      "div",
      { class: "field wide" },
      element("label", { for: slider.id }, "Size ε"),
      element("div", { class: "slide" }, slider, number),
      unit,
    ),
  ];
  const part = attackSection(controls, [start, work.stop], meaning, optionsPlace, status, result);
  return {
    part,
    take(made) {
      work.forget();
      heard = made;
      start.disabled = !made;
      fill(result);
    },
  };
}
