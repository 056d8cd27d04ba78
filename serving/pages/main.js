// The list of the models, and the one that is tried: its card, its panel, and its last request as code.

import { choice, element, fill, shown } from "./elements.js";
import { key, read, ServerError } from "./server.js";
import { snippetsPart } from "./snippets.js";

const PANEL = /^[a-z_]+$/; // the name of a module, and no path
const MANY = 8; // models from which on the list can be filtered, and numbers of a list in the settings that are shown
const LONG = 32; // other entries of a list in the settings that are shown

const [list, main, about, filter, keyForm] = ["models", "main", "about", "filter", "key"].map((id) =>
  document.getElementById(id),
);
const keyField = document.getElementById("key-field");
let models = [];
let leaving = new AbortController(); // of what belongs to the model that is shown

// ---- the list ---------------------------------------------------------------------------------------------------------

async function start() {
  try {
    const [server, answer] = await Promise.all([read("/v2"), read("/v2/models")]);
    about.textContent = server.version;
    models = answer.models;
  } catch (error) {
    if (error.status === 401) return askForKey(key.get() ? error.message : "");
    return fill(main, alert(error));
  }
  keyForm.hidden = !key.get();
  keyForm.classList.toggle("known", Boolean(key.get()));
  filter.hidden = models.length <= MANY;
  listModels();
  route();
}

function listModels() {
  const words = filter.value.toLowerCase();
  const [name] = chosen();
  const entries = models.filter((each) =>
    `${each.name} ${each.task} ${each.description}`.toLowerCase().includes(words),
  );
  fill(
    list,
    entries.map((each) =>
      element(
        "li",
        {},
        element(
          each.actions.length ? "a" : "span",
          {
            class: "model",
            href: each.actions.length ? `#/${encodeURIComponent(each.name)}` : undefined,
            "aria-current": each.name === name ? "page" : undefined,
          },
          element("strong", {}, each.name),
          element("small", {}, each.reason ? `${each.task}: not served` : each.task),
          element("span", { class: "about" }, each.reason || each.description),
        ),
      ),
    ),
    entries.length
      ? null
      : element(
          "li",
          { class: "note" },
          models.length
            ? "No model matches."
            : "The store holds no models yet. New ones are served as soon as they are there.",
        ),
  );
}

filter.addEventListener("input", listModels);
list.addEventListener("click", (event) => event.target.closest("a") && main.focus());

// ---- the key ----------------------------------------------------------------------------------------------------------

function askForKey(reason) {
  fill(main, reason ? alert(new Error(reason)) : null);
  fill(list);
  keyForm.hidden = false;
  keyForm.classList.remove("known");
  keyField.focus();
}

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(keyField.value.trim());
  keyField.value = "";
  fill(main);
  start();
});

document.getElementById("key-forget").addEventListener("click", () => {
  key.forget();
  location.hash = "";
  start();
});

// ---- a model ----------------------------------------------------------------------------------------------------------

/** The model and the version in the address of the page. */
function chosen() {
  return location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
}

async function route() {
  leaving.abort();
  leaving = new AbortController();
  const [name, version] = chosen();
  const served = models.filter((each) => each.actions.length);
  listModels();
  list.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  if (!name) return served.length ? location.replace(`#/${encodeURIComponent(served[0].name)}`) : fill(main, welcome());
  const path = `/v2/models/${encodeURIComponent(name)}${version ? `/versions/${encodeURIComponent(version)}` : ""}`;
  document.title = `${name} · Assay`;
  main.setAttribute("aria-busy", "true");
  try {
    const metadata = await read(path, leaving.signal);
    await show({ ...metadata, path, asked: Boolean(version), version: metadata.parameters.version }, leaving.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) askForKey(error.message);
    else fill(main, alert(error));
  } finally {
    main.removeAttribute("aria-busy");
  }
}

function welcome() {
  return element("p", { class: "note" }, "Nothing is served yet: a run that saves a model puts it here.");
}

async function show(model, signal) {
  const place = element("div", { class: "panel" });
  const errors = element("div", { class: "errors" });
  const { part, show: showCode } = snippetsPart();
  const page = {
    signal,
    sent(request) {
      fill(errors);
      showCode(request);
    },
    failed(error) {
      if (error.status === 401) return askForKey(error.message);
      fill(errors, alert(error));
    },
  };
  const { panel } = model.parameters;
  if (!PANEL.test(panel)) throw new ServerError(`the server names a panel ${panel}, which this page has not`, 0);
  const module = await import(`./panels/${panel}.js`);
  if (signal.aborted) return;
  fill(main, heading(model), place, errors, part, card(model));
  module.show(model, place, page);
}

function heading(model) {
  const versions = choice(
    model.versions.toReversed().map((version) => [version, `version ${version}`]),
    model.version,
    () => (location.hash = `#/${encodeURIComponent(model.name)}/${versions.value}`),
  );
  versions.setAttribute("aria-label", "Version");
  return element(
    "div",
    { class: "title" },
    element("h1", {}, model.name),
    model.versions.length > 1 ? versions : element("span", { class: "note" }, `version ${model.version}`),
    element("p", {}, model.parameters.description),
  );
}

function card(model) {
  const { settings, metrics, ...parameters } = model.parameters;
  const tensors = (specs) =>
    specs
      .map(
        ({ name, datatype, shape }) =>
          `${name}: ${datatype} [${shape.map((size) => (size === -1 ? "any" : size)).join(", ")}]`,
      )
      .join("; ");
  const rows = [
    ["Task", parameters.task],
    ["Inputs", tensors(model.inputs)],
    ["Outputs", tensors(model.outputs)],
    ["Weights", shown(parameters.weights)],
    ["Architecture", parameters.architecture],
    ["Study", parameters.study],
    ["Made", parameters.created.replace("T", " ").replace("+00:00", " UTC")],
    ["Settings", JSON.stringify(settings, brief)],
  ];
  return element(
    "details",
    { class: "card", open: true },
    element("summary", {}, "Card"),
    element(
      "dl",
      {},
      rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
    ),
    element("h4", {}, "Measured"),
    element(
      "dl",
      { class: "metrics" },
      Object.entries(metrics).map(([name, value]) =>
        element("div", {}, element("dt", {}, name), element("dd", { class: "number" }, shown(value))),
      ),
    ),
  );
}

/** A value of the settings: of a long list, and of many numbers, only how many there are. */
function brief(name, value) {
  if (!Array.isArray(value)) return value;
  if (value.length > MANY && typeof value[0] === "number") return `${value.length} numbers`;
  return value.length > LONG ? `${value.length} entries` : value;
}

function alert(error) {
  return element("p", { class: "error", role: "alert" }, error.message);
}

addEventListener("hashchange", route);
start();
