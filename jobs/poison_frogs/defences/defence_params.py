"""Filters of the training set that a victim may have before it: the parameters of the defences."""

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from jobs.common.params import StudyParams
from jobs.poison_frogs.defences import filters


class Filter(StudyParams):
    """A filter of the training set. Its children say their `kind`."""

    def check(self, labels: Tensor) -> None:
        """FieldError if it cannot filter a set with these labels, int64 (n,), whatever the features."""

    @abstractmethod
    def keep(self, features: Tensor, labels: Tensor) -> Tensor:
        """Which points stay, bool (n,). features: (n, D). labels: int64 (n,)."""


class DeepKnn(Filter):
    """A filter of the training set, by the features of the attacked network: Peri et al. 2020."""

    kind: Literal["deep_knn"] = Field("deep_knn", description="drop what most of its neighbours say is another class")
    k: int = Field(50, ge=1, description="neighbours; twice the poisons at least")

    def check(self, labels: Tensor) -> None:
        filters.check_neighbours(self.k, len(labels))

    def keep(self, features: Tensor, labels: Tensor) -> Tensor:
        return filters.deep_knn(features, labels, self.k)


class L2Outliers(Filter):
    """A filter of the training set: Steinhardt et al. 2017."""

    kind: Literal["l2_outliers"] = Field("l2_outliers", description="drop what is farthest from the mean of its class")
    share: float = Field(0.05, ge=0, lt=1, description="of each class that is dropped")

    def keep(self, features: Tensor, labels: Tensor) -> Tensor:
        return filters.l2_outliers(features, labels, self.share)


class Spectral(Filter):
    """A filter of the training set: Tran et al. 2018."""

    kind: Literal["spectral"] = Field("spectral", description="drop what lies farthest along the main direction")
    poisons: int = Field(1, ge=1, description="in a class, as the defender guesses")
    factor: float = Field(1.5, ge=1, description="times as many are dropped")

    def check(self, labels: Tensor) -> None:
        filters.check_dropped(filters.dropped_of_class(self.poisons, self.factor), labels)

    def keep(self, features: Tensor, labels: Tensor) -> Tensor:
        return filters.spectral_signatures(features, labels, self.poisons, self.factor)


class Clustering(Filter):
    """A filter of the training set: Chen et al. 2018."""

    kind: Literal["activation_clustering"] = Field(
        "activation_clustering", description="drop the smaller of two clusters of each class"
    )
    dimensions: int | None = Field(10, ge=1, description="principal components that are looked at; none: all")
    largest_share: float = Field(0.5, gt=0, le=0.5, description="of a class that is believed to be poison")

    def keep(self, features: Tensor, labels: Tensor) -> Tensor:
        return filters.activation_clustering(features, labels, self.dimensions, self.largest_share)


DefenceParams = Annotated[DeepKnn | L2Outliers | Spectral | Clustering, Field(discriminator="kind")]
