// What a model takes a file for: the class, and the probabilities as bars.

import { element, fill, percent } from "./elements.js";
import { outputs, request } from "./server.js";

const MOST = 5;

/**
 * A part of a page. ask(file): what the model takes a file, or the promise of one, for; an earlier request is given up.
 * empty(): nothing is asked.
 */
export function predictionPart(model, page) {
  const { classes } = model.parameters.settings;
  const part = element("section", { class: "result", "aria-live": "polite", "aria-label": "Prediction" });
  let controller = null;

  function empty() {
    controller?.abort();
    fill(part, element("p", { class: "note" }, "The prediction appears here."));
  }

  async function ask(file) {
    controller?.abort();
    controller = new AbortController();
    const signal = AbortSignal.any([controller.signal, page.signal]);
    try {
      const query = { outputs: "prediction,probabilities" };
      const asked = request(model, "infer", { file: await file, query });
      const answer = await outputs(asked, signal);
      const best = answer.prediction.data[0];
      const probabilities = answer.probabilities.data;
      fill(
        part,
        answer.parameters.warning && element("p", { class: "note" }, answer.parameters.warning),
        element("p", { class: "answer" }, classes[best], element("span", {}, percent(probabilities[best]))),
        predictions(classes, probabilities, "Most probable classes"),
      );
      page.sent(asked);
    } catch (error) {
      if (error.name !== "AbortError") page.failed(error);
    }
  }

  empty();
  return { part, ask, empty };
}

/** The most probable classes. marked: the index of one that is always shown, in another colour; none: -1. */
export function predictions(classes, probabilities, label, marked = -1) {
  const order = [...probabilities.keys()].sort((one, other) => probabilities[other] - probabilities[one]);
  const chosen = order.slice(0, MOST);
  if (marked >= 0 && !chosen.includes(marked)) chosen[chosen.length - 1] = marked;
  return element(
    "table",
    { class: "bars" },
    element("caption", { class: "visually-hidden" }, label),
    element(
      "tbody",
      {},
      chosen.map((index, place) => {
        const bar = element("span", { class: "bar" });
        bar.style.width = `${100 * probabilities[index]}%`;
        return element(
          "tr",
          { class: [place === 0 && "top", index === marked && "marked"].filter(Boolean).join(" ") },
          element("th", { scope: "row" }, classes[index] ?? String(index)),
          element("td", { class: "track" }, bar),
          element("td", { class: "number" }, percent(probabilities[index])),
        );
      }),
    ),
  );
}
