// Requests to the server that this page comes from.

const KEY = "assay.key";

/** The key of this tab; none: "". */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

/** An answer that is an error: one sentence of the server's. */
export class ServerError extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

/**
 * A request as it is sent, and shown as code. message: its body as JSON; or file: a blob with its type. query: by name.
 * accept: the type of the file that is to come back; none: JSON does.
 */
export function request(model, action, { message, file, query = {}, accept = "" }) {
  return { model, action, path: `${model.path}/${action}`, message, file, query, accept };
}

/** The address of a request, without the server's. */
export function address({ path, query }) {
  const text = new URLSearchParams(query ?? {}).toString().replaceAll("%2C", ",");
  return text ? `${path}?${text}` : path;
}

/** Send a request. Returns the response; throws a ServerError with the server's sentence. */
export async function send(sent, signal) {
  const headers = {};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (sent.accept) headers.Accept = sent.accept;
  const init = { headers, signal };
  if (sent.message || sent.file) {
    headers["Content-Type"] = sent.message ? "application/json" : sent.file.type;
    Object.assign(init, { method: "POST", body: sent.message ? JSON.stringify(sent.message) : sent.file });
  }
  let response;
  try {
    response = await fetch(address(sent), init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("the server does not answer", 0);
  }
  if (!response.ok) throw new ServerError(await sentence(response), response.status);
  return response;
}

async function sentence(response) {
  const text = await response.text();
  const after = response.headers.get("Retry-After");
  let said = `${response.status} ${response.statusText}`;
  try {
    said = JSON.parse(text).error ?? said;
  } catch {
    // not of the server's own shape
  }
  return after ? `${said}; again in ${after} s` : said;
}

/** What is at a path, as JSON. */
export async function read(path, signal) {
  return (await send({ path }, signal)).json();
}

/** The outputs of an answer by name, each { data, shape }, and the parameters. */
export async function outputs(sent, signal) {
  return named(await (await send(sent, signal)).json());
}

function named(answer) {
  const byName = Object.fromEntries(answer.outputs.map((output) => [output.name, output]));
  return { ...byName, parameters: answer.parameters ?? {} };
}

/** The answers of a stream, as [event, outputs], each as it comes. */
export async function* events(sent, signal) {
  const response = await send(sent, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2)));
      const answer = JSON.parse(lines.data);
      if (lines.event === "error") throw new ServerError(answer.error, 200);
      yield [lines.event, named(answer)];
    }
  }
}

/** A tensor of numbers for a message. */
export function tensor(name, shape, data, datatype = "FP32") {
  return { name, datatype, shape, data };
}
