"""What the bounds cannot say, whatever the classifier: sentences to print beside them."""

import math

from jobs.inevitability.bounds.base import DensityBound
from jobs.inevitability.bounds.sphere import SphereBound
from service.errors import FieldError


def facts(bound: DensityBound, levels: int = 256) -> tuple[str, ...]:
    """How dense a class may be for the bound to say something within the diameter, in sentences.

    levels: values that a pixel can have, in whose bits per dimension the limit is put for the cube. FieldError: below
    2.
    """
    if levels < 2:
        raise FieldError("levels", "be at least 2, the values that a pixel can have", levels)
    if bound.unmet:
        return (f"the bound does not apply: {bound.unmet}",)
    if not bound.share:
        return ("no point of the space has the label of the class, so that all of it is misclassified",)
    limit = bound.log_density_limit
    if isinstance(bound, SphereBound):
        if math.isinf(limit):
            return ("no point of the sphere is farther than the radius of its class's cap from another class",)
        return (
            "the bound says something below pi/2, where half of the sphere reaches all of it, only if log V_c is "
            f"below {limit:.6g}",
        )
    reach = f"at {bound.diameter:.6g}, the diameter of {bound.space}"
    if limit <= 0:
        return (f"the bound says nothing even {reach}, for any density",)
    size = f" (U_c below {math.exp(limit):.4g})" if limit < 50 else ""
    sentence = f"the bound says something {reach}, only if log U_c is below {limit:.5g}{size}"
    bits = math.log2(levels) - limit / (bound.n * math.log(2))
    if bits <= 0:
        return (sentence,)
    return (
        sentence,
        f"images of {levels} values that a model gives fewer than {bits:.4g} bits per dimension are beyond that: for "
        f"them the bound is vacuous at every epsilon",
    )
