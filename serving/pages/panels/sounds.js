// Networks that say what is heard: a sound that is chosen or dropped, played back, and the classes.

import { element, fill, percent } from "../elements.js";
import { predictions } from "../predictions.js";
import { outputs, request } from "../server.js";

const VOLUME = 0.5; // nobody is startled by a loud file

export function show(model, place, page) {
  const { classes } = model.parameters.settings;
  const result = element("section", { class: "result", "aria-live": "polite", "aria-label": "Prediction" });
  const player = element("audio", { controls: true, hidden: true });
  player.volume = VOLUME;
  const chooser = element("input", { type: "file", accept: "audio/*,.wav,.flac,.ogg,.mp3", onchange: () => take(chooser.files[0]) });
  const drop = element("label", { class: "drop" }, "A sound (WAV, FLAC, OGG or MP3): ", chooser);
  drop.addEventListener("dragover", (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  let controller = null;

  async function take(file) {
    if (!file) return;
    controller?.abort();
    controller = new AbortController();
    const signal = AbortSignal.any([controller.signal, page.signal]);
    const sound = file.type.startsWith("audio/") ? file : new File([file], file.name, { type: "audio/wav" });
    URL.revokeObjectURL(player.src);
    player.src = URL.createObjectURL(sound);
    player.hidden = false;
    try {
      const asked = request(model, "infer", { file: sound, query: { outputs: "prediction,probabilities" } });
      const answer = await outputs(asked, signal);
      const best = answer.prediction.data[0];
      const probabilities = answer.probabilities.data;
      fill(
        result,
        element("p", { class: "answer" }, classes[best], element("span", {}, percent(probabilities[best]))),
        predictions(classes, probabilities, "Most probable classes"),
      );
      page.sent(asked);
    } catch (error) {
      if (error.name !== "AbortError") page.failed(error);
    }
  }

  fill(result, element("p", { class: "note" }, "The prediction appears here."));
  page.signal.addEventListener("abort", () => player.pause());
  fill(place, element("div", { class: "try" }, element("div", {}, drop, player), result));
}
