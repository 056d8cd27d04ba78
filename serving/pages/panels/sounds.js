// Networks that say what is heard: a sound that is chosen or dropped, played back, the classes; and sounds of its own.

import { element, fill } from "../elements.js";
import { predictionPart } from "../predictions.js";
import { sonificationPart } from "../sonification.js";
import { soundChooser, soundPlayer } from "../sounds.js";

export function show(model, place, page) {
  const prediction = predictionPart(model, page);
  const sonification = model.parameters.actions.includes("sonify") && sonificationPart(model, page);
  const player = soundPlayer("The sound", page.signal);
  const chooser = soundChooser((sound) => {
    player.load(sound);
    prediction.ask(sound);
    if (sonification) sonification.take(sound);
  });

  fill(
    place,
    element("div", { class: "try" }, element("div", {}, chooser, player.part), prediction.part),
    sonification && sonification.part,
  );
}
