"""What training is said to cost, against what a tiny one thinks about."""

from jobs.deep_thinking.estimation import estimate
from jobs.deep_thinking.training import train
from tests.jobs.deep_thinking.test_job import params


def test_instances_are_those_of_training(make_run) -> None:
    """Without the progressive loss each instance is thought about once, over all iterations."""
    asked = params(training__alpha=0.0, training__data={"kind": "fresh", "updates": 2, "validation": 4})
    estimated, problem = estimate(asked), asked.problem.build()
    net = asked.build_network(problem)
    learnt = []
    net.register_forward_pre_hook(lambda net, given: learnt.append(len(given[0])) if net.training else None)
    data = train(net, problem, asked.training, make_run())
    assert estimated.details == {"weight updates": data.updates, "instances to train on": sum(learnt)}
    assert sum(learnt) == 16
