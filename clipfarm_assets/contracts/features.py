"""What a model may see of a clip's metadata row, and in which form.

A feature set is a version of that choice: `v2` (the default) has only what is known when a clip is
published; `v1` is what the older deployment trained on, and holds columns captured at the horizon,
after the outcome, which contain part of the label.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

Availability = Literal["at_publish", "at_capture", "after_outcome"]
AVAILABILITIES: Final[tuple[Availability, ...]] = get_args(Availability)

Kind = Literal["numeric", "boolean", "categorical", "identifier", "text", "time"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

FeatureSet = Literal["v1", "v2"]
FEATURE_SETS: Final[tuple[FeatureSet, ...]] = get_args(FeatureSet)
DEFAULT_FEATURE_SET: Final[FeatureSet] = "v2"


@dataclass(frozen=True, slots=True)
class Column:
    """What is declared of a column of the metadata CSV.

    Attributes:
        availability: When its value is known.
        kind: What it holds. `identifier`, `text` and `time` are no features themselves.
    """

    availability: Availability
    kind: Kind


@dataclass(frozen=True)
class FeatureContract:
    """The metadata features of a model, in order.

    Attributes:
        feature_set: Its version, which registries and predictors are bound to.
        numeric: Names of float features; booleans are 0 and 1 among them.
        categorical: Names of low-cardinality text features.
        dropped: Every other column of the CSV, with why it is none.
        declared: Columns beyond the contract's that a deployment declared, e.g.
            ``{"my_score": Column("at_publish", "numeric")}``.
    """

    feature_set: FeatureSet
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    dropped: Mapping[str, str]
    declared: Mapping[str, Column]

    @property
    def features(self) -> tuple[str, ...]:
        """All of them: numeric, then categorical."""
        return self.numeric + self.categorical

    @property
    def sha256(self) -> str:
        """Identity of what a model sees: feature set, names and their order; not what is dropped.

        A newer CSV with one more dropped column feeds the same model.
        """
        seen = [self.feature_set, self.numeric, self.categorical]
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()

    def to_fields(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "FeatureContract":
        """The contract that `to_fields` wrote.

        Raises:
            ValueError: A field is missing or not one of a contract.
        """
        try:
            contract = cls(
                feature_set=fields["feature_set"],
                numeric=tuple(fields["numeric"]),
                categorical=tuple(fields["categorical"]),
                dropped=dict(fields["dropped"]),
                declared={name: Column(**c) for name, c in fields["declared"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"not a feature contract: {type(error).__name__}: {error}"
            raise ValueError(msg) from None
        if contract.feature_set not in FEATURE_SETS:
            msg = (
                f"feature_set must be one of {', '.join(FEATURE_SETS)}: "
                f"found {contract.feature_set!r}"
            )
            raise ValueError(msg)
        return contract
