// Sounds to listen to: as a WAV, with a player, and as a picture of their spectrogram.

import { element } from "./elements.js";
import { canvas } from "./pictures.js";

const VOLUME = 0.5; // nobody is startled by a loud file
const FLOOR = 8; // natural logarithms of power below the loudest point that are still shown
const MAGMA = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191]]; // prettier-ignore

/** A player that stops when the page goes on. play(file) gives it a sound; null takes it away. */
export function soundPlayer(label, signal) {
  const part = element("audio", { controls: true, hidden: true, "aria-label": label });
  part.volume = VOLUME;
  signal.addEventListener("abort", () => part.pause());
  return {
    part,
    load(file) {
      URL.revokeObjectURL(part.src);
      part.hidden = !file;
      if (file) part.src = URL.createObjectURL(file);
    },
  };
}

/** A field for a sound of a person's own, chosen or dropped. taken(file) is called with each. */
export function soundChooser(taken) {
  const chooser = element("input", {
    type: "file",
    accept: "audio/*,.wav,.flac,.ogg,.mp3",
    onchange: () => take(chooser.files[0]),
  });
  const part = element("label", { class: "drop" }, "A sound (WAV, FLAC, OGG or MP3): ", chooser);
  part.addEventListener("dragover", (event) => event.preventDefault());
  part.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });

  function take(file) {
    if (file) taken(file.type.startsWith("audio/") ? file : new File([file], file.name, { type: "audio/wav" }));
  }

  return part;
}

/** Samples in [-1, 1] as a WAV of 16 bits. rate: samples a second. */
export function wav(samples, rate) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (place, word) => [...word].forEach((letter, at) => bytes.setUint8(place + at, letter.charCodeAt(0)));
  text(0, "RIFF");
  bytes.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true); // bytes of the format
  bytes.setUint16(20, 1, true); // PCM
  bytes.setUint16(22, 1, true); // channels
  bytes.setUint32(24, rate, true);
  bytes.setUint32(28, 2 * rate, true); // bytes a second
  bytes.setUint16(32, 2, true); // bytes of a sample of all channels
  bytes.setUint16(34, 16, true); // bits
  text(36, "data");
  bytes.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, at) => bytes.setInt16(44 + 2 * at, Math.round(32767 * sample), true));
  return new Blob([bytes], { type: "audio/wav" });
}

/** A log-mel spectrogram as a picture, low bands below. data: natural logarithms of power. shape: [1, bands, frames]. */
export function spectrogram({ data, shape: [, bands, frames] }, label) {
  const made = canvas(frames, bands, { class: "spectrogram", role: "img", "aria-label": label });
  const context = made.getContext("2d");
  const image = context.createImageData(frames, bands);
  const loudest = data.reduce((most, value) => Math.max(most, value), -Infinity);
  for (let band = 0; band < bands; band++) {
    for (let frame = 0; frame < frames; frame++) {
      const level = 1 + (data[band * frames + frame] - loudest) / FLOOR;
      image.data.set([...colour(Math.max(0, level)), 255], 4 * ((bands - 1 - band) * frames + frame));
    }
  }
  context.putImageData(image, 0, 0);
  return made;
}

/** level: in [0, 1]. */
function colour(level) {
  const place = level * (MAGMA.length - 1);
  const low = Math.min(Math.floor(place), MAGMA.length - 2);
  return MAGMA[low].map((from, index) => from + (place - low) * (MAGMA[low + 1][index] - from));
}
