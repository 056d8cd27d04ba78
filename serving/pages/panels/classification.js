// Networks that say what is on a picture: the classes with their probabilities, and attacks on them.

import { attackPart } from "../attack.js";
import { element, fill } from "../elements.js";
import { pictureInput } from "../picture_input.js";
import { png } from "../pictures.js";
import { predictionPart, predictions } from "../predictions.js";
import { outputs, request, tensor } from "../server.js";

const LONGEST = 512; // side of a picture, where the model takes any

export function show(model, place, page) {
  const { settings } = model.parameters;
  const classes = settings.classes;
  const [, channels, height, width] = model.inputs[0].shape;
  const prediction = predictionPart(model, page);

  const attack =
    model.parameters.actions.includes("attack") &&
    attackPart(model, {
      classes,
      named: ["prediction", "adversarial_prediction", "successful", "rounded_successful"],
      page,
      show: describe,
    });

  async function describe({ before, after }, answer, signal) {
    const shape = [1, ...before.shape];
    const [from, to] = await Promise.all(
      [before, after].map(async ({ data }) => {
        const message = {
          inputs: [tensor(model.inputs[0].name, shape, [...data])],
          outputs: [{ name: "probabilities" }],
        };
        return (await outputs(request(model, "infer", { message }), signal)).probabilities.data;
      }),
    );
    const [was, is] = [answer.prediction.data[0], answer.adversarial_prediction.data[0]];
    const rounded =
      answer.rounded_successful.data[0] || !answer.successful.data[0]
        ? ""
        : ", but not when its pixels are rounded to 8 bits";
    return {
      sentence:
        was === is
          ? `Still ${classes[is]}: the model withstands this attack.`
          : `${classes[was]} → ${classes[is]}${rounded}`,
      before: predictions(classes, from, "Prediction for the original", was),
      after: predictions(classes, to, "Prediction for the adversarial", was),
    };
  }

  function changed(picture) {
    attack && attack.take(picture);
    if (picture) prediction.ask(png(picture.sent));
    else prediction.empty();
  }

  const input = pictureInput(
    { channels, height, width, resize: settings.resize, longest: LONGEST },
    changed,
    page.signal,
  );
  fill(place, element("div", { class: "try" }, input.part, prediction.part), attack && attack.part);
}
