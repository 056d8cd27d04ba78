// The spectrogram of a sound with the peaks of its fingerprint, as a server answers them.

import { element, shown } from "./elements.js";
import { canvas } from "./pictures.js";
import { spectrogram } from "./sounds.js";

const ACROSS = 2; // pixels of a frame, so that its peaks can be told apart
const DOT = 4; // pixels of a peak
const LEVELS = 8 / 255; // from levels of the server to logarithms of power, as `spectrogram` takes them
const COMMON = "#ffffff"; // peaks that the other sound has as well
const OWN = "#4fe0ff"; // those of this sound alone

/**
 * A picture with its legend. answer: with spectrogram and peaks, [1, bins, frames] each. other: the answer about another
 * sound of the same length, whose peaks are compared; none: they are not.
 */
export function peaksPicture(answer, rate, title, other) {
  const { data, shape } = answer.spectrogram;
  const [, bins, frames] = shape;
  const plain = spectrogram({ data: data.map((level) => LEVELS * level), shape }, title);
  const made = canvas(ACROSS * frames, bins, { class: "spectrogram", role: "img" });
  const context = made.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(plain, 0, 0, made.width, made.height);
  let [count, common] = [0, 0];
  answer.peaks.data.forEach((peak, place) => {
    if (!peak) return;
    const both = Boolean(other?.peaks.data[place]);
    count += 1;
    common += Number(both);
    context.fillStyle = both || !other ? COMMON : OWN;
    const [bin, frame] = [Math.floor(place / frames), place % frames];
    context.fillRect(ACROSS * (frame + 0.5) - DOT / 2, bins - 1 - bin - DOT / 2, DOT, DOT);
  });
  const legend = other
    ? `${shown(count)} peaks: white are the ${shown(common)} of both sounds, blue the others`
    : `${shown(count)} peaks`;
  made.setAttribute("aria-label", `${title}: spectrogram from 0 to ${shown(rate / 2)} hertz. ${legend}.`);
  return element("div", {}, made, element("p", { class: "note" }, `0 to ${shown(rate / 2)} Hz, low below. ${legend}.`));
}
