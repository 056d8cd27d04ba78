// Probabilities of classes, as bars.

import { element, percent } from "./elements.js";

const MOST = 5;

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
