// Networks that say what is heard: a sound that is chosen or dropped, played back, the classes; and sounds of its own.

import { element, fill } from "../elements.js";
import { predictionPart } from "../predictions.js";
import { sonificationPart } from "../sonification.js";
import { soundPlayer } from "../sounds.js";

export function show(model, place, page) {
  const prediction = predictionPart(model, page);
  const sonification = model.parameters.actions.includes("sonify") && sonificationPart(model, page);
  const player = soundPlayer("The sound", page.signal);
  const chooser = element("input", { type: "file", accept: "audio/*,.wav,.flac,.ogg,.mp3", onchange: () => take(chooser.files[0]) });
  const drop = element("label", { class: "drop" }, "A sound (WAV, FLAC, OGG or MP3): ", chooser);
  drop.addEventListener("dragover", (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });

  function take(file) {
    if (!file) return;
    const sound = file.type.startsWith("audio/") ? file : new File([file], file.name, { type: "audio/wav" });
    player.load(sound);
    prediction.ask(sound);
    if (sonification) sonification.take(sound);
  }

  fill(
    place,
    element("div", { class: "try" }, element("div", {}, drop, player.part), prediction.part),
    sonification && sonification.part,
  );
}
