"""Sonification: sounds that excite the features of a network that listens, and what its layers keep of speech.

A recogniser of spoken words is trained, or one that is there is loaded. Sounds are optimised by gradient ascent, each
to excite one feature of one layer: a neuron, a channel, a direction, a class, or all of a layer. What is reported is
what the sound in the WAV file excites through the whole network, and the place of the feature among all of its layer.
Inversion makes sounds that a layer cannot tell from a clip; probes read the word, the voice and the pitch out of each
layer: shallow layers keep who speaks and how high, deep ones what was said.

The method is ours: of the article only its opening, with its questions and findings, could be read.

Metrics, for `sweep.metric`, in one row at the end; NAME is of a sonification, LAYER of the network, TARGET of a probe:
    train_loss, train_accuracy          while a recogniser is trained here
    test_accuracy                       share of the clips to test that the network recognises
    selective_NAME                      share of sounds that excite their own feature most of all in the layer
    gain_NAME                           what sounds excite more than what they began with, in the mean
    margin_NAME                         what sounds excite more than random features of the layer, in the mean
    kept_NAME                           median share of what optimisation gained that is left in the WAV
    dead_NAME                           features that no clip excites
    inversion_error_LAYER               squared distance of log-mels relative to those of the clip, in the mean
    recognised_LAYER                    share of inversions that the network takes for the clip's class
    probe_TARGET_LAYER                  R2 of a number, accuracy of a class, on the clips to test

Specs to begin with: configs/sonification/.

Sources: Ghiasi et al. 2021, "Feature Sonification" (VISxAI); Olah et al. 2017, "Feature Visualization"; Mahendran &
Vedaldi 2015; Alain & Bengio 2017.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from jobs.common.audio.networks.base import SoundNetwork, channels_of, log_mel_of
from jobs.common.data.sounds.base import Part, SoundSet
from jobs.common.data.sounds.phonemes import phonemes
from jobs.common.trials import rows_of
from jobs.sonification import estimation, figures, inversion, networks, page, probes, results
from jobs.sonification.judgement import judged
from jobs.sonification.optimisation.edges import inside
from jobs.sonification.params import Params
from jobs.sonification.player import player
from jobs.sonification.responses import Responses, mean_mels, responses_of
from jobs.sonification.results import nearest_clip
from jobs.sonification.sonification import Sonification, check_section, features_of, shared_of, sonify
from service.errors import within
from service.run import Estimate, Run, Trial

PLACEMENT = "fan_out"
ABOUT = (
    "Each tab is a channel of a layer, the shallowest layer first. Its sound was optimised to excite the channel.",
    "All sounds are of one loudness, that of quiet speech. Curves are in standard deviations over real clips.",
)


def run(params: Params, run: Run) -> None:
    """Train or load the network, listen to what its layers answer, and make sounds of it."""
    train, test = params.data.load_splits()
    network = networks.untrained(params, train, run)
    check(params, network, test)
    network = networks.ready(params, network, run)
    accuracy = run.reserved(networks.accuracy_of, network, test)
    mel = log_mel_of(network)
    mels = mean_mels(mel, train)
    responses = responses_of(network, train, run, "train-responses")
    fields = {layer: inside(network, layer, train.samples) for layer in network.layers}
    results.keep_layers(network, responses, fields, run)
    networks.save(params, network, train, accuracy, responses, mels.mean, run)

    metrics: dict[str, float] = {} if accuracy is None else {"test_accuracy": accuracy}
    sonifications = {}
    for name, section in params.sonifications.items():
        features = features_of(section, network, responses, train, run)
        shared = shared_of(section, network, responses, train, test, mels.mean)
        sonifications[name] = sonify(name, features, shared, run)
        results.keep_sonification(
            name, section.objective.unit, features, sonifications[name], responses, train, network, mel, run
        )
        if params.examples and section.by_channel:
            results.keep_examples(name, sonifications[name], responses, train, params.examples, run)
        metrics |= results.metrics_of_sonification(sonifications[name], features, name)
        if sonifications[name] and section.objective.kind != "direction":
            keep_page(name, params, sonifications[name], network, responses, train, run)

    inverted, probed = [], []
    if params.inversion is not None:
        clips = Part(test, torch.arange(params.inversion.clips))
        made = inversion.invert(inversion.shared_of(params.inversion, network, responses, mel, mels, test), run)
        start = params.inversion.start[0]
        inverted = results.keep_inversions(made, start, clips, network, mel, run)
        metrics |= results.metrics_of_inversions(inverted, start, network)
    if params.probes is not None:
        on_test = responses_of(network, test, run, "test-responses")
        targets = run.reserved(probes.targets_of, params.probes, train, test)
        probed = probes.probe(params.probes, targets, responses, on_test, run)
        run.table("probes", probed, title="What a linear probe reads out of every layer, on clips to test")
        metrics |= {f"probe_{row['target']}_{row['layer']}": row["score"] for row in probed}
    if probed or inverted:
        picture = figures.depth(network.layers, probed, inverted)
        run.figure("depth", picture, title="What the layers of the network keep of speech")
    for sentence in results.warnings_of(sonifications, fields, accuracy):
        run.warn(sentence)
    run.log(step=run.step, **metrics)


def keep_page(
    name: str,
    params: Params,
    sonifications: Sequence[Sonification],
    network: SoundNetwork,
    responses: Mapping[str, Responses],
    clips: SoundSet,
    run: Run,
) -> None:
    """What judges hear in the sounds, and the page on which a person hears them. clips: that the responses are to."""
    verdicts: list[dict[str, Any]] = []
    near: list[str] = []
    if params.judgement is not None:
        places = [nearest_clip(each.activations, responses[each.feature.layer])[0] for each in sonifications]
        nearest = clips.sounds(torch.tensor(places))
        verdicts = judged(name, params.judgement, sonifications, nearest, network.rate, run)
        run.table(f"{name}_judged", verdicts, title=f"What judges hear in the sounds ({name})")
    if params.phonemes:
        near = page.nearest_phonemes(sonifications, network, responses, phonemes(params.data.folder))
    title = f"What {params.network_name} has learnt"
    tabs = page.tabs(
        sonifications, network, responses, clips, near, verdicts, params.sonifications[name].objective.unit
    )
    run.html(
        f"{name}_player", player(title, network.rate, tabs, ABOUT), title=f"Hear it: a page that plays them ({name})"
    )


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """The numbers of every trial, and what is left at which depth of the first one."""
    trials = [trial for trial in trials if trial.has_results]
    if not trials:
        return
    run.table("results", rows_of(trials), title="Every trial")
    for trial in trials:
        probed, inverted = trial.table("probes"), trial.table("inversions")
        if probed or inverted:
            layers = [row["layer"] for row in trial.table("layers")]
            title = "What the layers of the network keep of speech"
            run.figure(f"depth_{trial.id}", figures.depth(layers, probed, inverted), title=f"{title}: {trial.label}")


def estimate(params: Params) -> Estimate:
    """What a trial costs."""
    return estimation.estimate(params)


def check(params: Params, network: SoundNetwork, test: SoundSet) -> None:
    """Whether all that is asked can be done, before anything is computed. The network may be untrained."""
    for layer in network.layers:
        inside(network, layer, test.samples)  # it has a gradient
    channels = channels_of(network, test.samples)
    for name, section in params.sonifications.items():
        with within(f"sonifications.{name}"):
            check_section(section, network, channels, test)
    if params.inversion is not None:
        with within("inversion"):
            inversion.check(params.inversion, network, test)
    if params.probes is not None:
        probes.check(params.probes, test)
