// Pictures as tensors and back. A tensor of a picture is { data, shape: [channels, height, width] }, numbers in [0, 1].

/** A canvas of a size, and its context. */
export function canvas(width, height, properties = {}) {
  const made = Object.assign(document.createElement("canvas"), { width, height });
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  return made;
}

function context(made) {
  return made.getContext("2d", { willReadFrequently: true });
}

/**
 * A picture cut and scaled as the server does with an uploaded one, in the browser, so that what the model gets can be
 * shown: { sent, seen }, two canvases. Of what is sent the server only cuts out the centre, which is what is seen.
 * source: a canvas or bitmap. input: { channels, height, width, resize, longest }; a side of -1 is free, at most longest.
 */
export function prepared(source, { channels, height, width, resize, longest }) {
  let sent;
  if (height === -1 || width === -1) {
    const scale = Math.min(1, longest / Math.max(source.width, source.height));
    sent = canvas(Math.max(1, Math.round(source.width * scale)), Math.max(1, Math.round(source.height * scale)));
    paint(sent, source, 0, 0, source.width, source.height);
  } else {
    const margin = (resize ?? Math.min(width, height)) / Math.min(width, height);
    sent = canvas(Math.max(width, Math.round(width * margin)), Math.max(height, Math.round(height * margin)));
    const scale = Math.max(sent.width / source.width, sent.height / source.height);
    const [w, h] = [sent.width / scale, sent.height / scale];
    paint(sent, source, (source.width - w) / 2, (source.height - h) / 2, w, h);
  }
  if (channels === 1) makeGrey(sent);
  const seen = canvas(width === -1 ? sent.width : width, height === -1 ? sent.height : height);
  context(seen).drawImage(sent, -even((sent.width - seen.width) / 2), -even((sent.height - seen.height) / 2));
  return { sent, seen };
}

/** The nearest whole number; of two the even one, as Python rounds. */
function even(number) {
  const down = Math.floor(number);
  return number - down === 0.5 ? down + (down % 2) : Math.round(number);
}

/** Draw a part of a picture into all of a canvas. Shrunk by halves first: a browser looks at four pixels only. */
function paint(target, source, x, y, width, height) {
  let [from, left, top, w, h] = [source, x, y, width, height];
  while (w / 2 >= target.width && h / 2 >= target.height) {
    const half = canvas(Math.round(w / 2), Math.round(h / 2));
    context(half).drawImage(from, left, top, w, h, 0, 0, half.width, half.height);
    [from, left, top, w, h] = [half, 0, 0, half.width, half.height];
  }
  const drawing = context(target);
  drawing.fillStyle = "white"; // behind what is transparent
  drawing.fillRect(0, 0, target.width, target.height);
  drawing.imageSmoothingQuality = "high";
  drawing.imageSmoothingEnabled = w !== target.width || h !== target.height;
  drawing.drawImage(from, left, top, w, h, 0, 0, target.width, target.height);
}

function makeGrey(made) {
  change(made, (pixels) => {
    for (let at = 0; at < pixels.length; at += 4) {
      // ITU-R BT.601, in the integers of Pillow, so that the server reads the same
      const grey = (19595 * pixels[at] + 38470 * pixels[at + 1] + 7471 * pixels[at + 2] + 0x8000) >> 16;
      pixels.fill(grey, at, at + 3);
    }
  });
}

export function invert(made) {
  change(made, (pixels) => {
    for (let at = 0; at < pixels.length; at += 4) {
      for (let of = at; of < at + 3; of++) pixels[of] = 255 - pixels[of];
    }
  });
}

function change(made, apply) {
  const image = context(made).getImageData(0, 0, made.width, made.height);
  apply(image.data);
  context(made).putImageData(image, 0, 0);
}

export function png(made) {
  return new Promise((resolve) => made.toBlob(resolve, "image/png"));
}

/** The pixels of a canvas as the tensor that the server reads from its PNG. */
export function tensorOf(made, channels) {
  const { data } = context(made).getImageData(0, 0, made.width, made.height);
  const area = made.width * made.height;
  const tensor = new Float32Array(channels * area);
  for (let at = 0; at < area; at++) {
    for (let channel = 0; channel < channels; channel++) tensor[channel * area + at] = data[4 * at + channel] / 255;
  }
  return { data: tensor, shape: [channels, made.height, made.width] };
}

/** Draw a tensor with values of [low, high] as black to white. */
export function drawTensor(made, { data, shape }, low = 0, high = 1) {
  const [channels, height, width] = shape;
  Object.assign(made, { width, height });
  const image = context(made).createImageData(width, height);
  const area = width * height;
  for (let at = 0; at < area; at++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = data[(channels === 1 ? 0 : channel) * area + at];
      image.data[4 * at + channel] = Math.round((255 * (value - low)) / (high - low));
    }
    image.data[4 * at + 3] = 255;
  }
  context(made).putImageData(image, 0, 0);
}

/** Draw a difference so that its largest value fills the range, grey where there is none. Returns that value. */
export function drawDifference(made, before, after) {
  const data = Float32Array.from(after.data, (value, at) => value - before.data[at]);
  const largest = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  drawTensor(made, { data, shape: before.shape }, -(largest || 1), largest || 1);
  return largest;
}

/** Draw classes in their colours over what a canvas shows. opacity: of the colours, in [0, 1]. */
export function drawClasses(made, labels, palette, opacity) {
  change(made, (pixels) => {
    labels.forEach((label, at) => {
      for (let channel = 0; channel < 3; channel++) {
        const of = 4 * at + channel;
        pixels[of] = Math.round((1 - opacity) * pixels[of] + opacity * palette[label][channel]);
      }
    });
  });
}

/** The part of a picture that differs from another of its size, within corners: a canvas; null if nothing does. */
export function changedPart(before, after, [left, top, right, bottom]) {
  const [x, y] = [Math.max(0, Math.floor(left)), Math.max(0, Math.floor(top))];
  const width = Math.min(after.width, Math.ceil(right)) - x;
  const height = Math.min(after.height, Math.ceil(bottom)) - y;
  if (width < 1 || height < 1) return null;
  const [one, other] = [before, after].map((made) => context(made).getImageData(x, y, width, height).data);
  const places = [];
  for (let at = 0; at < one.length; at += 4) {
    if (one[at] !== other[at] || one[at + 1] !== other[at + 1] || one[at + 2] !== other[at + 2]) places.push(at / 4);
  }
  if (!places.length) return null;
  const columns = places.map((place) => place % width);
  const [first, last] = [places[0], places.at(-1)].map((place) => Math.floor(place / width));
  const [from, to] = columns.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [width, 0]);
  const made = canvas(to - from + 1, last - first + 1, { class: "pixels", role: "img", "aria-label": "Changed part" });
  context(made).drawImage(after, x + from, y + first, made.width, made.height, 0, 0, made.width, made.height);
  return made;
}
