"""Traces, against matrices and Hessians that are written out."""

import math

import numpy as np
import pytest
import torch

from jobs.common.curvature.hessian import Hessian
from jobs.common.curvature.probes import rademacher
from jobs.common.curvature.trace import estimates, shares
from tests.jobs.common.curvature.made import small_network, written_out
from tests.jobs.common.curvature.matrices import Dense, rotated


def test_the_trace_of_a_network_and_of_its_layers() -> None:
    network, images, labels = small_network()
    hessian = Hessian(network, images, labels)
    diagonal = torch.from_numpy(written_out(network, images, labels, hessian.names)).diagonal()
    assert list(hessian.layers) == ["0", "4"]
    drawn = shares(hessian, rademacher(hessian.size, range(200)), hessian.layers)
    estimated = estimates(drawn, hessian.layers)
    expected = {"": diagonal.sum(), "0": diagonal[:27].sum(), "4": diagonal[27:].sum()}
    for name, value in expected.items():
        assert abs(estimated[name].value - float(value)) < 3.5 * estimated[name].standard_error
        assert estimated[name].standard_error < 0.2 * float(expected[""])
    assert estimated["0"].value + estimated["4"].value == pytest.approx(estimated[""].value, rel=1e-12)


def test_a_diagonal_matrix_takes_one_probe() -> None:
    """Each entry of a Rademacher probe squared is 1."""
    matrix = Dense(torch.diag(torch.arange(6.0)))
    estimated = estimates(shares(matrix, rademacher(6, [5]), {"a": slice(0, 2), "b": slice(2, 6)}), {"a": 0, "b": 0})
    assert (estimated[""].value, estimated["a"].value, estimated["b"].value) == (15, 1, 14)
    assert math.isnan(estimated["a"].standard_error)


def test_standard_errors_are_those_of_many_repeats() -> None:
    """And the values are right in the mean."""
    matrix = rotated(np.concatenate([[30.0, -20.0, 10.0], np.linspace(-1, 1, 47)]))
    layers = {"a": slice(0, 20), "b": slice(20, 50)}
    exact = matrix.entries.diagonal()
    drawn = shares(matrix, rademacher(50, range(2000)), layers)
    whole = estimates(drawn, layers)
    for name, place in {"": slice(0, 50), **layers}.items():
        assert abs(whole[name].value - float(exact[place].sum())) < 3.5 * whole[name].standard_error
    few = [estimates(part, layers)["a"] for part in drawn.split(20)]
    spread = np.std([each.value for each in few])
    assert np.mean([each.standard_error for each in few]) == pytest.approx(spread, rel=0.25)
