// The part of a page that attacks what is there: its settings, how far it is, and what came of it.

import { element } from "./elements.js";

export function attackSection(controls, tools, meaning, options, status, result) {
  return element(
    "section",
    { class: "attack", "aria-labelledby": "attack-title" },
    element("h3", { id: "attack-title" }, "Attack it"),
    element("div", { class: "controls" }, ...controls, element("div", { class: "tools" }, ...tools)),
    meaning,
    options,
    status,
    result,
  );
}
