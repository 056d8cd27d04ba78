// Long work for one request at a time: a button stops it, and what it will replace is shown as stale.

import { button } from "./elements.js";

export function longWork(page, status, result) {
  let controller = null;
  const abort = () => controller?.abort();
  const stop = button("Stop", abort, { hidden: true });

  // act takes a signal and answers with the sentence that stands there in the end
  async function run(sentence, act) {
    abort();
    const mine = (controller = new AbortController());
    stop.hidden = false;
    status.textContent = sentence;
    result.classList.add("stale");
    try {
      status.textContent = await act(AbortSignal.any([mine.signal, page.signal]));
    } catch (error) {
      status.textContent = "";
      if (error.name !== "AbortError") page.failed(error);
      else if (controller === mine) status.textContent = "Stopped.";
    } finally {
      if (controller === mine) {
        stop.hidden = true;
        result.classList.remove("stale");
      }
    }
  }

  // what is there is of something else now
  function forget() {
    abort();
    controller = null;
    stop.hidden = true;
    status.textContent = "";
    result.classList.remove("stale");
  }

  return { stop, abort, forget, run };
}
