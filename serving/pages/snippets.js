// The request that was just sent, as code that sends it again.

import { button, element, fill } from "./elements.js";
import { address, key } from "./server.js";

const ENDINGS = { "audio/flac": "flac", "audio/x-flac": "flac", "audio/ogg": "ogg", "audio/mpeg": "mp3" };
const SHORT = 400; // characters of a message that are written into the code; a longer one goes into a file

const PRINTED = [
  'for output in response.json()["outputs"]:',
  '    print(output["name"], output["shape"], output["data"][:10])',
];

/** A part of a page that shows the last request. */
export function snippetsPart() {
  const list = element("div", { class: "tabs", role: "tablist", "aria-label": "Language" });
  const code = element("code");
  const box = element("pre", { id: "code", tabIndex: 0, role: "tabpanel", "aria-label": "Code" }, code);
  const file = element("a", { class: "download" });
  const copy = button("Copy", async () => {
    await navigator.clipboard.writeText(code.textContent);
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  const part = element(
    "section",
    { class: "code", hidden: true, "aria-labelledby": "code-title" },
    element("div", { class: "head" }, element("h3", { id: "code-title" }, "The same in code"), file, copy),
    list,
    box,
  );
  let chosen = "curl";

  function show(request) {
    part.hidden = false;
    const all = snippets(request);
    const texts = Object.fromEntries(all);
    if (!(chosen in texts)) chosen = "curl";
    const tabs = all.map(([name]) => button(name, () => choose(name), { role: "tab", "aria-controls": "code" }));
    function choose(name) {
      chosen = name;
      code.textContent = texts[name];
      for (const tab of tabs) {
        const selected = tab.textContent === name;
        tab.setAttribute("aria-selected", selected);
        tab.tabIndex = selected ? 0 : -1;
      }
    }
    list.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const place = (tabs.findIndex((tab) => tab.textContent === chosen) + step + tabs.length) % tabs.length;
      choose(tabs[place].textContent);
      tabs[place].focus();
    };
    fill(list, tabs);
    choose(chosen);
    offer(request);
  }

  function offer(request) {
    const name = fileOf(request);
    file.hidden = !name;
    if (!name) return;
    URL.revokeObjectURL(file.href);
    file.href = URL.createObjectURL(request.file ?? new Blob([JSON.stringify(request.message)]));
    file.download = name;
    file.textContent = `Download ${name}`;
  }

  return { part, show };
}

function isSound(request) {
  return request.file?.type.startsWith("audio/") ?? false;
}

/** The name of the file that comes back, by its type. */
function answerFile(accept) {
  return `answer.${accept.split("/")[1]}`;
}

/** The name of the file that goes with the code; "": none is needed. */
function fileOf(request) {
  if (isSound(request)) return `sound.${ENDINGS[request.file.type] ?? "wav"}`;
  if (request.file) return "image.png";
  return JSON.stringify(request.message).length > SHORT ? "request.json" : "";
}

function snippets(request) {
  const made = [
    ["curl", curl(request)],
    ["Python", python(request)],
  ];
  // tritonclient has no streams of events here, no sounds, no requests without a tensor, and gets no files
  if (request.action !== "infer_stream" && request.action !== "sonify" && !isSound(request) && !request.accept) {
    made.push(["tritonclient", triton(request)]);
  }
  return made;
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function curl(request) {
  const file = fileOf(request);
  const lines = [
    `curl -s${request.action === "infer_stream" ? "N" : ""} ${quoted(location.origin + address(request))}`,
  ];
  if (request.file) lines.push(`--data-binary @${file} -H 'Content-Type: ${request.file.type}'`);
  else lines.push(`--json ${file ? `@${file}` : quoted(JSON.stringify(request.message))}`);
  if (request.accept) lines.push(`-H 'Accept: ${request.accept}' -o ${answerFile(request.accept)}`);
  if (key.get()) lines.push('-H "Authorization: Bearer $ASSAY_KEY"');
  return lines.join(" \\\n  ");
}

function python(request) {
  const file = fileOf(request);
  const streamed = request.action === "infer_stream";
  const headers = [];
  if (request.file) headers.push(`"Content-Type": "${request.file.type}"`);
  if (request.accept) headers.push(`"Accept": "${request.accept}"`);
  if (key.get()) headers.push(AUTHORIZATION);
  const sent = [`    "${location.origin}${request.path}",`];
  const query = Object.entries(request.query);
  if (query.length) sent.push(`    params=${pythonic(Object.fromEntries(query))},`);
  if (request.file) sent.push(`    content=open("${file}", "rb").read(),`);
  else sent.push(`    json=${file ? `json.load(open("${file}"))` : pythonic(request.message)},`);
  if (headers.length) sent.push(`    headers={${headers.join(", ")}},`);
  sent.push("    timeout=300,");
  const imports = ["import json", ...(key.get() ? ["import os"] : []), "", "import httpx", ""];
  if (streamed) {
    sent.unshift('    "POST",');
    return [
      ...imports,
      "with httpx.stream(",
      ...sent,
      ") as response:",
      "    response.raise_for_status()",
      "    for line in response.iter_lines():",
      '        if line.startswith("data: "):',
      '            outputs = {each["name"]: each["data"] for each in json.loads(line[6:])["outputs"]}',
      '            print(outputs["iterations"], outputs["prediction"], outputs["verified"])',
    ].join("\n");
  }
  return [
    ...imports.slice(file.endsWith("json") ? 0 : key.get() ? 1 : 2),
    "response = httpx.post(",
    ...sent,
    ")",
    "response.raise_for_status()",
    ...(request.accept ? written(answerFile(request.accept)) : PRINTED),
  ].join("\n");
}

function written(file) {
  return [
    `open("${file}", "wb").write(response.content)`,
    'print({name: value for name, value in response.headers.items() if name.startswith("assay-")})',
  ];
}

/** A value of JSON as Python writes it. */
function pythonic(value) {
  return JSON.stringify(value)
    .replace(
      /"(?:[^"\\]|\\.)*"|true|false|null/g,
      (word) => ({ true: "True", false: "False", null: "None" })[word] ?? word,
    )
    .replace(/"(?:[^"\\]|\\.)*"|[:,]/g, (word) => (word === ":" || word === "," ? `${word} ` : word));
}

function triton(request) {
  const file = fileOf(request);
  const { model } = request;
  const lines = ["import numpy as np", "import tritonclient.http as triton"];
  if (request.action === "attack") lines.unshift("import httpx");
  if (request.file) {
    const [, channels] = model.inputs[0].shape;
    lines.push("from PIL import Image", "");
    lines.push(`image = np.atleast_3d(Image.open("${file}").convert("${channels === 1 ? "L" : "RGB"}"))`);
    lines.push("array = image.transpose(2, 0, 1)[None].astype(np.float32) / 255", ...centre(model));
  } else {
    const [input] = request.message.inputs;
    const data = file ? `json.load(open("${file}"))["inputs"][0]["data"]` : pythonic(input.data);
    if (file) lines.unshift("import json", "");
    lines.push("", `array = np.array(${data}, np.float32).reshape(${input.shape.join(", ")})`);
  }
  if (key.get()) lines.unshift("import os", "");
  lines.push(`tensor = triton.InferInput(${pythonic(model.inputs[0].name)}, list(array.shape), "FP32")`);
  lines.push("tensor.set_data_from_numpy(array)", ...(request.action === "attack" ? attack(request) : infer(request)));
  lines.push('for output in result.get_response()["outputs"]:');
  lines.push('    print(output["name"], result.as_numpy(output["name"]).tolist())');
  return lines.join("\n");
}

const AUTHORIZATION = "\"Authorization\": f\"Bearer {os.environ['ASSAY_KEY']}\"";

function infer({ model, message, query }) {
  const { outputs, ...options } = query;
  const parameters = message?.parameters ?? options;
  const version = model.asked ? `, model_version="${model.version}"` : "";
  const more = Object.keys(parameters).length ? `, parameters=${pythonic(parameters)}` : "";
  const secure = location.protocol === "https:" ? ", ssl=True" : "";
  const headers = key.get() ? `, headers={${AUTHORIZATION}}` : "";
  return [
    `client = triton.InferenceServerClient("${location.host}"${secure})`,
    `result = client.infer("${model.name}", [tensor]${version}${more}${headers})`,
  ];
}

/** The client has no call for attacks, but it writes their requests and reads their answers. */
function attack({ path, query }) {
  const { outputs, ...parameters } = query;
  const length = '"Inference-Header-Content-Length"';
  return [
    "body, length = triton.InferenceServerClient.generate_request_body(",
    "    [tensor],",
    `    outputs=[triton.InferRequestedOutput(name) for name in "${outputs}".split(",")],`,
    `    parameters=${pythonic(parameters)},`,
    ")",
    `headers = {${length}: str(length)${key.get() ? `, ${AUTHORIZATION}` : ""}}`,
    `response = httpx.post("${location.origin}${path}", content=body, headers=headers, timeout=300)`,
    "response.raise_for_status()",
    `length = int(response.headers[${length}])`,
    "result = triton.InferenceServerClient.parse_response_body(response.content, header_length=length)",
  ];
}

/** The centre of an array, where the server cuts it out of an uploaded picture. */
function centre({ inputs, parameters }) {
  const [, , height, width] = inputs[0].shape;
  if (height === -1 || (parameters.settings.resize ?? 0) <= Math.min(height, width)) return [];
  return [
    `top, left = (round((size - side) / 2) for size, side in zip(array.shape[2:], (${height}, ${width})))`,
    `array = np.ascontiguousarray(array[:, :, top : top + ${height}, left : left + ${width}])`,
  ];
}
