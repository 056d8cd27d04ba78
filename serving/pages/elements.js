// Elements of a page. Texts only ever become text nodes: a card is written by anybody.

/**
 * An element.
 * properties: of the DOM by their names; "class"; attributes with a dash ("aria-label"); listeners ("onclick").
 * children: elements and texts; null and false are left out.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  append(made, children);
  return made;
}

/** Put new children in place of the old ones. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
  return parent;
}

function append(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) parent.append(child);
  }
}

let last = 0;

/** A field with its label. */
export function field(label, input, note) {
  input.id ||= `field-${++last}`;
  return element("div", { class: "field" }, element("label", { for: input.id }, label), input, note);
}

/** A list to choose from. options: of [value, text]. */
export function choice(options, chosen, onchange) {
  return element(
    "select",
    { onchange },
    options.map(([value, text]) => element("option", { value, selected: value === chosen }, text)),
  );
}

export function button(text, onclick, properties = {}) {
  return element("button", { type: "button", onclick, ...properties }, text);
}

/** A number for people: four digits are enough. */
export function shown(number) {
  if (typeof number !== "number") return String(number);
  if (Number.isInteger(number)) return number.toLocaleString("en");
  return Math.abs(number) >= 1e-3 ? String(Number(number.toPrecision(4))) : number.toExponential(2);
}

export function percent(share) {
  return `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)} %`;
}
