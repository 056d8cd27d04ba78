"""How good speech sounds, by DNSMOS.

Reddy, Gopal, Cutler 2022, "DNSMOS P.835: A Non-Intrusive Perceptual Objective Speech Quality Metric to Evaluate Noise
Suppressors" (arXiv 2110.01763); the network is that of the package speechmos, and runs in onnxruntime.
"""

from pathlib import Path

import numpy as np
from torch import Tensor

from jobs.common.audio.judges.onnx import session
from jobs.common.data.packages import SPEECHMOS

SAMPLES = 144_160  # 9.01 s at 16 kHz: what the network takes
CURVES = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}
"""square, slope and offset that bring what the network says to the scale of people, in the order of its outputs"""


class QualityJudge:
    """InputError on making it if onnxruntime or the weights are not there."""

    def __init__(self, folder: Path | None = None) -> None:
        self._session = session(SPEECHMOS.path("sig_bak_ovr.onnx", folder), "the judge of quality (DNSMOS)")

    def scores(self, sound: Tensor) -> dict[str, float]:
        """Mean opinions from 1, bad, to 5, excellent: about the speech, the noise behind it, and both.

        sound: float (samples,) at 16 kHz; a short one is repeated, of a long one the first 9 seconds are heard.
        """
        samples = np.resize(sound.numpy().astype(np.float32), SAMPLES)[None]
        (opinions,) = self._session.run(None, {self._session.get_inputs()[0].name: samples})
        return {
            name: float(np.polyval(curve, opinion))
            for (name, curve), opinion in zip(CURVES.items(), opinions[0], strict=True)
        }
