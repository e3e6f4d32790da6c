"""Which metadata columns a model may see: the hard set, and when every column is known.

Sources: the training contract, sections 4.1 and 4.2, and the record of what leaked in the deployed
pipeline: channel counters captured at the horizon hold a part of the label. The loader refuses on
the findings of `contract_findings`; the asset check shows them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.features import (
    AVAILABILITIES,
    DEFAULT_FEATURE_SET,
    FEATURE_SETS,
    KINDS,
    Availability,
    Column,
    FeatureContract,
    FeatureSet,
    Kind,
)
from clipfarm_assets.contracts.horizon_csv import COLUMNS


def _columns(availability: Availability, kind: Kind, names: str) -> dict[str, Column]:
    return dict.fromkeys(names.split(), Column(availability, kind))


# What its owner writes or sets counts as known at publication, although it is read at capture: it
# is rarely edited afterwards, and no audience changes it. What the platform counts or decides, and
# what owners switch in answer to the audience, is at_capture. `publicStatsViewable`, `likes_hidden`
# and the like are of the second sort.
_DECLARED: Final[dict[str, Column]] = {
    **_columns("at_publish", "identifier", "video_id url channel_id thumbnail_url"),
    # A channel can take another handle; its id stays.
    **_columns("at_capture", "identifier", "channel_custom_url"),
    **_columns("at_publish", "text", "title description duration"),
    # Channels are renamed when they grow; topics are the platform's guess, made later.
    **_columns("at_capture", "text", "channel_title topic_categories"),
    **_columns("at_publish", "time", "published_at channel_created_at"),
    **_columns("at_capture", "time", "captured_at"),
    # query and category_type are the collector's: the seed term was chosen before the clip was seen
    # and no later capture changes it. (A search engine may have ranked by early views; that
    # decides which clips are in the data, not which of its terms a clip has.)
    **_columns(
        "at_publish",
        "categorical",
        "query category_type channel_country default_language default_audio_language dimension "
        "definition projection license",
    ),
    # Which collector ran says when it ran; a clip's status can be the platform's answer to it.
    **_columns("at_capture", "categorical", "collector_version privacy_status upload_status"),
    **_columns(
        "at_publish",
        "numeric",
        "title_length description_length channel_description_length emoji_count hashtag_count "
        "duration_seconds thumb_width thumb_height thumb_aspect_ratio",
    ),
    # Captured at the horizon: they count the clip's own views, or what these brought.
    # channel_age_days holds the clip's age; `channel_age_at_publish_days` stands in for it.
    **_columns(
        "at_capture",
        "numeric",
        "channel_subscriber_count channel_video_count channel_view_count channel_age_days "
        "channel_median_shorts_view_count",
    ),
    # caption_available means captions that the owner uploaded, licensed_content a claim made at
    # upload: both come with the clip.
    **_columns(
        "at_publish",
        "boolean",
        "has_hashtags has_shorts_hashtag has_clickbait_words caption_available licensed_content "
        "is_vertical_thumb shorts_by_duration shorts_by_hashtag is_short embeddable madeForKids",
    ),
    **_columns(
        "at_capture",
        "boolean",
        "channel_hidden_subscriber_count publicStatsViewable likes_hidden comments_disabled "
        "stats_hidden",
    ),
    **_columns(
        "after_outcome",
        "numeric",
        "view_count like_count comment_count age_days views_per_day likes_per_day comments_per_day "
        "likes_per_view comments_per_view views_per_hour virality_score horizon_days "
        "horizon_view_count",
    ),
    **_columns("after_outcome", "boolean", "too_new_for_rates"),
    **_columns("after_outcome", "categorical", "horizon_label_type"),
}

AVAILABILITY: Final[Mapping[str, Column]] = MappingProxyType(
    {name: _DECLARED[name] for name in COLUMNS}
)
"""Every column of the metadata CSV: when its value is known, and what it holds."""

HARD_LEAKAGE: Final = frozenset(
    {
        "horizon_view_count",
        "horizon_days",
        "horizon_label_type",
        "view_count",
        "like_count",
        "comment_count",
        "views_per_day",
        "likes_per_day",
        "comments_per_day",
        "likes_per_view",
        "comments_per_view",
        "views_per_hour",
        "age_days",
        "virality_score",
    }
)
"""Never a feature, whatever is declared."""

HIGH_CARDINALITY: Final = frozenset({"channel_id", "channel_title"})
"""They tell channels apart: a model would learn them by heart."""

LOW_CARDINALITY: Final = (
    "channel_country",
    "default_language",
    "default_audio_language",
    "query",
)
"""The categorical features of the contract; its other categories are constants in practice."""

OUTCOMES: Final = tuple(
    name for name, column in AVAILABILITY.items() if column.availability == "after_outcome"
)
"""Columns that are known only after the outcome, in the CSV's order."""


@dataclass(frozen=True, slots=True)
class Derived:
    """A numeric feature made of columns that are no features themselves.

    Attributes:
        sources: The columns it is made of, all known at publication.
        feature_sets: Which sets have it.
    """

    sources: tuple[str, ...]
    feature_sets: tuple[FeatureSet, ...]


DERIVED: Final[Mapping[str, Derived]] = MappingProxyType(
    {
        "published_hour": Derived(("published_at",), FEATURE_SETS),
        "published_dayofweek": Derived(("published_at",), FEATURE_SETS),
        "channel_age_at_publish_days": Derived(("published_at", "channel_created_at"), ("v2",)),
    }
)
"""Hour (UTC), day of week (UTC, Monday is 0), and the channel's age in days when it published."""


class UndeclaredColumn(ValueError):  # noqa: N818
    """The CSV has a column of which nobody said when its value is known."""


class BadDeclaration(ValueError):  # noqa: N818
    """A deployment's declaration of a column is not one, or is about a column of the contract."""


class FeatureLeakage(ValueError):  # noqa: N818
    """A feature holds, or may hold, what is known only after the outcome."""


def feature_contract(
    columns: Sequence[str],
    feature_set: FeatureSet = DEFAULT_FEATURE_SET,
    declared: Mapping[str, Column] = MappingProxyType({}),
) -> FeatureContract:
    """The features of a CSV with these columns.

    Args:
        columns: The header of the CSV. One of an older file, which lacks columns, gives a contract
            without the features that need them.
        feature_set: ``v2`` is what is known at publication; ``v1`` has the columns captured at the
            horizon as well, as the older deployment had.
        declared: Columns beyond the contract's, as the deployment declares them.

    Returns:
        Features in the order of the contract's columns, then declared ones by name, then derived
        ones; every other column of the CSV with the reason why it is none.

    Raises:
        UndeclaredColumn: A column is neither the contract's nor declared.
        BadDeclaration: A declaration is not one, or redefines a column or feature of the contract.
        ValueError: There is no such feature set.
    """
    if feature_set not in FEATURE_SETS:
        msg = f"unknown feature set {feature_set!r}: expected one of {', '.join(FEATURE_SETS)}"
        raise ValueError(msg)
    _check_declared(declared)
    _check_known(columns, declared)
    numeric: list[str] = []
    categorical: list[str] = []
    dropped: dict[str, str] = {}
    present = frozenset(columns)
    for name in (*COLUMNS, *sorted(declared)):
        if name not in present:
            continue
        column = AVAILABILITY[name] if name in AVAILABILITY else declared[name]
        reason = _why_no_feature(name, column, feature_set)
        if reason:
            dropped[name] = reason
        elif column.kind == "categorical":
            categorical.append(name)
        else:
            numeric.append(name)
    numeric += [
        name
        for name, derived in DERIVED.items()
        if feature_set in derived.feature_sets and present.issuperset(derived.sources)
    ]
    return FeatureContract(
        feature_set=feature_set,
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        dropped=dropped,
        declared=dict(sorted(declared.items())),
    )


def source_columns(contract: FeatureContract) -> tuple[str, ...]:
    """The CSV columns that the features are read from or made of, in order, once each."""
    names = [
        source
        for feature in contract.features
        for source in (DERIVED[feature].sources if feature in DERIVED else (feature,))
    ]
    return tuple(dict.fromkeys(names))


def contract_findings(contract: FeatureContract) -> Verdict:
    """What is wrong with the features of a contract, however it came about."""
    findings = [
        Finding(name, problem)
        for features, is_categorical in ((contract.numeric, False), (contract.categorical, True))
        for name in features
        if (problem := _problem(name, is_categorical=is_categorical, contract=contract))
    ]
    findings += [
        Finding(name, "is a feature more than once")
        for name in sorted(set(contract.features))
        if contract.features.count(name) > 1
    ]
    facts = {
        "feature_set": contract.feature_set,
        "numeric": len(contract.numeric),
        "categorical": len(contract.categorical),
        "dropped": len(contract.dropped),
        "declared": len(contract.declared),
    }
    return Verdict(tuple(findings), len(contract.features), facts)


def assert_no_feature_leakage(contract: FeatureContract) -> None:
    """Refuse a contract with a leaking feature.

    Raises:
        FeatureLeakage: `contract_findings` has findings; names them all.
    """
    verdict = contract_findings(contract)
    if not verdict.holds:
        msg = (
            f"expected features of set {contract.feature_set} without leakage, found "
            f"{verdict.summary(limit=len(verdict.findings))}; build the features with "
            "feature_contract"
        )
        raise FeatureLeakage(msg)


def _why_no_feature(name: str, column: Column, feature_set: FeatureSet) -> str:
    """The reason why a column is no feature of the set; empty if it is one."""
    if column.availability == "after_outcome":
        return "known only after the outcome"
    if name in HIGH_CARDINALITY:
        return "high cardinality: it tells channels apart"
    if column.kind == "identifier":
        return "an identifier"
    if column.kind == "text":
        return "free text"
    if column.kind == "time":
        return "a time: features are derived from it, or it is when the row was captured"
    if column.kind == "categorical" and name in AVAILABILITY and name not in LOW_CARDINALITY:
        return "a category that the contract doesn't list as a feature"
    if column.availability == "at_capture" and feature_set != "v1":
        return "captured at the horizon, after the outcome: a feature of set v1 only"
    return ""


def _problem(name: str, *, is_categorical: bool, contract: FeatureContract) -> str:
    """What is wrong with one feature; empty if nothing is."""
    if name in HARD_LEAKAGE:
        return "is of the hard leakage set"
    if name in HIGH_CARDINALITY:
        return "is of high cardinality: it tells channels apart"
    if name in DERIVED:
        # Made of what is known at publication, so in place in either set.
        return "is derived as a number, not a category" if is_categorical else ""
    # The contract's own word counts, even where a snapshot's file declares otherwise.
    column = AVAILABILITY.get(name) or contract.declared.get(name)
    if column is None:
        return "is neither a column of the contract, nor declared, nor derived"
    if column.availability not in AVAILABILITIES:
        return f"is declared {column.availability!r}, none of {', '.join(AVAILABILITIES)}"
    expected = ("categorical",) if is_categorical else ("numeric", "boolean")
    if column.kind not in expected:
        return f"is declared {column.kind}, expected {' or '.join(expected)}"
    return _why_no_feature(name, column, contract.feature_set)


def _check_declared(declared: Mapping[str, Column]) -> None:
    for name, column in declared.items():
        if name in AVAILABILITY or name in DERIVED:
            what = "column" if name in AVAILABILITY else "derived feature"
            msg = (
                f"declared_columns may hold columns beyond the contract's only: {name} is a "
                f"{what} of it and stays as it is; take the entry out"
            )
            raise BadDeclaration(msg)
        if column.availability not in AVAILABILITIES or column.kind not in KINDS:
            msg = (
                f"declared column {name} needs an availability of {', '.join(AVAILABILITIES)} and "
                f"a kind of {', '.join(KINDS)}: found {column.availability!r} and {column.kind!r}"
            )
            raise BadDeclaration(msg)


def _check_known(columns: Sequence[str], declared: Mapping[str, Column]) -> None:
    unknown = [name for name in columns if name not in AVAILABILITY and name not in declared]
    if unknown:
        msg = (
            "expected declared columns only, found "
            f"{', '.join(map(repr, unknown))} in the metadata CSV, and whether a model may see a "
            "column depends on when its value is known (at_publish: once the clip is published, "
            "at_capture: measured when the row was captured, after_outcome: counts or is computed "
            "from the outcome): declare it in the deployment setting CLIPFARM_TRAINING_CONFIG, "
            f'e.g. {{"declared_columns": {{"{unknown[0]}": '
            '{"availability": "at_publish", "kind": "numeric"}}}'
        )
        raise UndeclaredColumn(msg)
