"""What tests of several studies write: parameters that differ in a few fields, cards of untrained networks."""

from typing import Any

from service.models import CardDraft


def changed(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A tree of parameters with some fields replaced, in place. changes: by path, as in training__batch."""
    for path, value in changes.items():
        place = tree
        *parents, last = path.split("__")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


def draft(
    architecture: str,
    arguments: dict[str, Any],
    task: str = "classification",
    study: str = "test",
    settings: dict[str, Any] | None = None,
) -> CardDraft:
    """The card of an untrained network, of which nothing is known but what builds it."""
    return CardDraft(
        architecture=architecture,
        arguments=arguments,
        study=study,
        task=task,
        inputs=(),
        outputs=(),
        settings=settings or {},
        metrics={},
        description="untrained",
    )
