// Any model: a message in JSON, and the outputs.

import { button, element, field, fill, shown } from "../elements.js";
import { outputs, request, tensor } from "../server.js";

const FREE = 8; // size of a side that is free
const MOST = 64; // numbers of an output that are shown

export function show(model, place, page) {
  const inputs = model.inputs.map(({ name, datatype, shape }) => {
    const sizes = shape.map((size, axis) => (size !== -1 ? size : axis === 0 ? 1 : FREE));
    const zero = datatype === "BOOL" ? false : 0;
    return tensor(name, sizes, Array(sizes.reduce((one, other) => one * other, 1)).fill(zero), datatype);
  });
  const text = element("textarea", { rows: 10, spellcheck: false, value: JSON.stringify({ inputs }) });
  const result = element("section", { class: "result", "aria-live": "polite", "aria-label": "Outputs" });

  async function send() {
    try {
      const asked = request(model, "infer", { message: JSON.parse(text.value) });
      const { parameters, ...byName } = await outputs(asked, page.signal);
      fill(
        result,
        parameters.warning && element("p", { class: "note" }, parameters.warning),
        Object.entries(byName).map(([name, { shape, data }]) =>
          element(
            "div",
            {},
            element("h4", {}, name, element("small", {}, ` ${shape.join(" × ")}`)),
            element(
              "code",
              { class: "numbers" },
              data.slice(0, MOST).map(shown).join("  "),
              data.length > MOST ? " …" : "",
            ),
          ),
        ),
      );
      page.sent(asked);
    } catch (error) {
      if (error.name !== "AbortError") page.failed(error);
    }
  }

  fill(
    place,
    field("Message", text),
    element("div", { class: "tools" }, button("Infer", send, { class: "primary" })),
    result,
  );
}
