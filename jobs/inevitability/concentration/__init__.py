"""How concentrated a data set is: error regions of a given mass whose expansion gains little, and what they gain.

A classifier that errs on a share alpha of the inputs has an error region of that mass. Whatever the region is, its
expansion by epsilon has at least the mass h(alpha, epsilon), the concentration function of the data. So no classifier
whose risk is at least alpha is robust on more than 1 - h of the inputs: the intrinsic robustness. A search finds some
region with some expansion. That is h at most, up to sampling, so 1 - its adversarial risk approaches the ceiling from
below.

    train, test = halves(sample, seed=0)
    measured = measure(HalfSpaces(), train, test, p=math.inf, alpha=0.05, epsilons=[0.05, 0.1], seed=0)
    measured[0].test.adversarial_risk, measured[0].ceiling
"""

from jobs.inevitability.concentration.label_uncertainty import label_uncertainty
from jobs.inevitability.concentration.measurement import Mass, Measurement, measure
from jobs.inevitability.concentration.methods import METHODS, Balls, Boxes, HalfSpaces, Method, MethodParams
from jobs.inevitability.concentration.samples import Sample, half, halves

__all__ = [
    "METHODS",
    "Balls",
    "Boxes",
    "HalfSpaces",
    "Mass",
    "Measurement",
    "Method",
    "MethodParams",
    "Sample",
    "half",
    "halves",
    "label_uncertainty",
    "measure",
]
