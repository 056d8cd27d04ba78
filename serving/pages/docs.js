// All requests of the server, from its description.

import { element, fill } from "./elements.js";
import { read } from "./server.js";

const DEEPEST = 6;

const main = document.getElementById("main");
const api = await read("/openapi.json");
document.getElementById("about").textContent = api.info.version;

/** What a reference points at, or the thing itself. */
function resolved(tree) {
  if (!tree.$ref) return tree;
  return tree.$ref
    .slice(2)
    .split("/")
    .reduce((place, name) => place[name], api);
}

function operation(path, method, described) {
  const badge = element("span", { class: `method ${method}` }, method.toUpperCase());
  const body = described.requestBody;
  const parameters = described.parameters.map(resolved);
  return element(
    "details",
    { class: "operation", id: described.operationId },
    element("summary", {}, badge, element("code", {}, path), element("span", { class: "about" }, described.summary)),
    parameters.length > 0 && [
      element("h4", {}, "Parameters"),
      element(
        "dl",
        {},
        parameters.flatMap((each) => [
          element(
            "dt",
            {},
            element("code", {}, each.name),
            element("small", {}, ` ${each.in}${each.required ? "" : ", optional"}`),
          ),
          element("dd", {}, each.description ?? "", element("small", {}, ` ${short(each.schema ?? Object.values(each.content)[0].schema)}`)),
        ]),
      ),
    ],
    body && [element("h4", {}, "Body", element("small", {}, body.required ? "" : " optional")), contents(body.content)],
    element("h4", {}, "Answers"),
    element(
      "dl",
      {},
      Object.entries(described.responses).flatMap(([status, answer]) => {
        const { description, content } = resolved(answer);
        return [
          element("dt", {}, status),
          element("dd", {}, description, status === "200" && content ? contents(content) : null),
        ];
      }),
    ),
  );
}

function contents(content) {
  return Object.entries(content).map(([media, { schema }]) =>
    element("div", { class: "schema" }, element("code", { class: "media" }, media), " ", tree(schema)),
  );
}

/** A schema as nested lists. */
function tree(schema, depth = 0) {
  const { properties, items, anyOf, required = [] } = resolved(schema);
  if (anyOf) return anyOf.map((each, place) => [place > 0 && element("small", {}, "or"), tree(each, depth)]);
  if (items && depth < DEEPEST) return tree(items, depth + 1);
  if (!properties || depth >= DEEPEST) return element("span", {}, short(schema));
  return element(
    "ul",
    {},
    Object.entries(properties).map(([name, inner]) => {
      const whole = resolved(inner);
      const nested = whole.properties || resolved(whole.items ?? {}).properties;
      return element(
        "li",
        {},
        element("code", {}, name),
        element("small", {}, ` ${short(inner)}${required.includes(name) ? "" : ", optional"}`),
        nested && tree(inner, depth + 1),
      );
    }),
  );
}

/** A schema in a few words. */
function short(schema) {
  const whole = resolved(schema);
  const bounds = [
    whole.pattern && `matches ${whole.pattern}`,
    whole.minimum !== undefined && `≥ ${whole.minimum}`,
    whole.maxLength && `≤ ${whole.maxLength} characters`,
    whole.maxItems && `≤ ${whole.maxItems}`,
    whole.description !== resolved(schema.$ref ? schema : {}).description && whole.description,
  ].filter(Boolean);
  const type = whole.enum
    ? whole.enum.join(" | ")
    : whole.items
      ? `list of ${short(whole.items)}`
      : (whole.format ?? [whole.type ?? "any"].flat().join(" | "));
  return [type, ...bounds].join(", ");
}

const groups = Map.groupBy(
  Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, each]) => [path, method, each]),
  ),
  ([, , each]) => each.tags[0],
);
fill(
  main,
  element(
    "div",
    { class: "title" },
    element("h1", {}, "Requests"),
    element(
      "p",
      {},
      api.info.description,
      " With keys, each request carries ",
      element("code", {}, "Authorization: Bearer KEY"),
      ".",
    ),
  ),
  [...groups].map(([tag, operations]) =>
    element(
      "section",
      {},
      element("h2", {}, tag[0].toUpperCase() + tag.slice(1)),
      operations.map((each) => operation(...each)),
    ),
  ),
);
