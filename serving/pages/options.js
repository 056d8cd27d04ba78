// Fields for the parameters that JSON schemas describe, each with its bounds and what it means.

import { choice, element, shown } from "./elements.js";

let last = 0;

/**
 * A part of a page. title: of the part. schemas: by the names of the parameters. changed: called when one is another.
 * values(): those that differ from their defaults. valid(): whether all are allowed; the first that is not is shown.
 */
export function optionsPart(title, schemas, changed) {
  const options = Object.entries(schemas).map(([name, schema]) => option(name, schema, update));
  const summary = element("summary", {}, title);
  const part = element(
    "details",
    { class: "options" },
    summary,
    element(
      "div",
      { class: "grid" },
      options.map(({ part }) => part),
    ),
  );

  function values() {
    const set = options.map(({ name, value }) => [name, value()]);
    return Object.fromEntries(set.filter(([name, value]) => value !== "" && value !== schemas[name].default));
  }

  function update() {
    const set = Object.entries(values()).map(([name, value]) => `${name} ${shown(value)}`);
    summary.textContent = set.length ? `${title}: ${set.join(", ")}` : title;
    changed();
  }

  return {
    part,
    values,
    valid() {
      const wrong = options.find(({ input }) => !input.checkValidity());
      if (wrong) {
        part.open = true;
        wrong.input.reportValidity();
      }
      return !wrong;
    },
  };
}

/** One field: { name, part, input, value() }, where "" is none. */
function option(name, schema, onchange) {
  const { input, value } = fieldOf(schema, onchange);
  input.id = `option-${++last}`;
  const note = element("span", { class: "readout", id: `${input.id}-note` }, sentence(schema));
  input.setAttribute("aria-describedby", note.id);
  const label = element("label", { for: input.id }, name);
  return { name, input, value, part: element("div", { class: "field" }, label, input, note) };
}

function fieldOf(schema, onchange) {
  if (schema.enum) {
    const input = choice(
      schema.enum.map((each, place) => [String(place), String(each)]),
      String(schema.enum.indexOf(schema.default)),
      onchange,
    );
    return { input, value: () => schema.enum[Number(input.value)] };
  }
  if (schema.type === "boolean") {
    const input = element("input", { type: "checkbox", checked: schema.default, onchange });
    return { input, value: () => input.checked };
  }
  if (schema.type === "string") {
    const { pattern = ".*" } = schema;
    const input = element("input", { type: "text", pattern, spellcheck: false, autocomplete: "off", onchange });
    input.value = schema.default ?? "";
    return { input, value: () => input.value.trim() };
  }
  const input = element("input", {
    type: "number",
    min: schema.minimum ?? schema.exclusiveMinimum,
    max: largest(schema),
    step: schema.type === "integer" ? 1 : "any",
    inputMode: schema.type === "integer" ? "numeric" : "decimal",
    placeholder: "none",
    onchange,
  });
  input.value = schema.default ?? "";
  return { input, value: () => (input.value === "" ? "" : input.valueAsNumber) };
}

/** The largest number that is allowed, and that can be told from its neighbours here. */
function largest({ maximum, exclusiveMaximum }) {
  const most = maximum ?? exclusiveMaximum;
  return most === undefined ? undefined : Math.min(most, Number.MAX_SAFE_INTEGER);
}

function sentence(schema) {
  const least = schema.exclusiveMinimum ?? schema.minimum;
  const parts = [];
  if (least !== undefined) parts.push(schema.exclusiveMinimum === undefined ? `from ${shown(least)}` : `above ${shown(least)}`);
  if (largest(schema) < Number.MAX_SAFE_INTEGER)
    parts.push(`${schema.maximum === undefined ? "below" : "to"} ${shown(largest(schema))}`);
  return [schema.description, parts.join(" ")].filter(Boolean).join("; ");
}
