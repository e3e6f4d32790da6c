"""What a model was fitted to, and may be given: the binding between training and serving.

A vector of another encoder has the same shape and another meaning; a model that is given it answers
all the same, and wrongly. So everything a model is given says what it is, and is compared here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.features import FeatureContract
from clipfarm_assets.contracts.horizons import Horizon
from clipfarm_assets.contracts.schema_lock import SchemaLock, fused_dim, resolve
from clipfarm_assets.contracts.statuses import MODALITIES, Modality, Strategy
from clipfarm_assets.training.snapshot import CONFIG, BadSnapshot
from clipfarm_assets.training.snapshot_reader import Snapshot

DATA_SUMMARY: Final = "data_summary.json"


class BindingMismatch(ValueError):  # noqa: N818 - reads better where it is raised
    """What a model is given is not of the kind that it was fitted to."""


@dataclass(frozen=True)
class Binding:
    """What the models of a snapshot were fitted to.

    Attributes:
        strategy, horizon: How vectors are fused, and which age's views are predicted.
        contract: The metadata features.
        lock_version, lock_sha256: The schema lock, see `SchemaLock.sha256`.
        embedding_versions: Modality -> version, as the lock named it.
        dims: Vector length by modality.
        append_mask: Whether fused vectors end in the text mask.
    """

    strategy: Strategy
    horizon: Horizon
    contract: FeatureContract
    lock_version: int
    lock_sha256: str
    embedding_versions: Mapping[Modality, str]
    dims: Mapping[Modality, int]
    append_mask: bool

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Binding":
        """That of a snapshot's models.

        Raises:
            BadSnapshot: Its files don't say, contradict each other, or are not as published.
        """
        config = snapshot.config
        try:
            lengths = snapshot.json(DATA_SUMMARY)["dims"]
            dims = {modality: int(lengths[modality]) for modality in MODALITIES}
            plain = fused_dim(
                snapshot.id.strategy,
                video_dim=dims["video"],
                audio_dim=dims["audio"],
                text_dim=dims["text"],
                append_mask=False,
            )
            binding = cls(
                strategy=config["strategy"],
                horizon=config["horizon_days"],
                contract=FeatureContract.from_fields(config["features"]),
                lock_version=config["lock_version"],
                lock_sha256=config["lock_sha256"],
                embedding_versions={m: config["embedding_versions"][m] for m in MODALITIES},
                dims=dims,
                append_mask=lengths["fused"] == plain + 1,
            )
        except (KeyError, TypeError, ValueError) as error:
            msg = (
                f"snapshot {snapshot.id}: {CONFIG} and {DATA_SUMMARY} don't say what its models "
                f"were fitted to ({type(error).__name__}: {error}); train again"
            )
            raise BadSnapshot(msg) from None
        told = (binding.strategy, binding.horizon, binding.contract.sha256)
        expected = (
            snapshot.id.strategy,
            snapshot.id.horizon,
            config.get("feature_contract_sha256"),
        )
        if told != expected or lengths["fused"] != plain + binding.append_mask:
            msg = (
                f"snapshot {snapshot.id}: {CONFIG} and {DATA_SUMMARY} contradict each other or its "
                "folder; train again"
            )
            raise BadSnapshot(msg)
        return binding

    @property
    def fused_dim(self) -> int:
        """Length of a fused vector."""
        return fused_dim(
            self.strategy,
            video_dim=self.dims["video"],
            audio_dim=self.dims["audio"],
            text_dim=self.dims["text"],
            append_mask=self.append_mask,
        )

    def lock_findings(self, lock: SchemaLock, adopted: Mapping[Modality, str]) -> Verdict:
        """Whether vectors under `lock` are of the kind that the models were fitted to.

        Args:
            lock: The lock of the vectors at hand.
            adopted: What unversioned vectors count as, see `schema_lock.resolve`.
        """
        findings = []
        if (lock.lock_version, lock.sha256) != (self.lock_version, self.lock_sha256):
            problem = (
                f"the model is bound to version {self.lock_version} "
                f"({self.lock_sha256[:12]}), found version {lock.lock_version} ({lock.sha256[:12]})"
            )
            findings.append(Finding(f"schema lock of {self.strategy}", problem))
        findings += self._version_findings(lock.embedding_versions, adopted, MODALITIES)
        return Verdict(tuple(findings), 1 + len(MODALITIES))

    def check_lock(self, lock: SchemaLock, adopted: Mapping[Modality, str]) -> None:
        """Refuse another lock.

        Raises:
            BindingMismatch: See `lock_findings`.
        """
        _refuse(self.lock_findings(lock, adopted), "use the model that was fitted under that lock")

    def check_versions(
        self,
        versions: Mapping[Modality, str],
        adopted: Mapping[Modality, str],
        modalities: Sequence[Modality] = MODALITIES,
    ) -> None:
        """Refuse vectors of another encoder, or of one that isn't told.

        Raises:
            BindingMismatch: The version of one of `modalities` is missing or another.
        """
        untold = [modality for modality in modalities if modality not in versions]
        if untold:
            msg = (
                f"expected the embedding versions of {', '.join(modalities)} vectors, found none "
                f"of {', '.join(untold)}: say what made them"
            )
            raise BindingMismatch(msg)
        findings = tuple(self._version_findings(versions, adopted, modalities))
        remedy = "embed the clip by the bound encoder, or use a model fitted to these vectors"
        _refuse(Verdict(findings, len(modalities)), remedy)

    def check_contract(self, sha256: str) -> None:
        """Refuse another feature contract.

        Raises:
            BindingMismatch: The features at hand are others, see `FeatureContract.sha256`.
        """
        if sha256 != self.contract.sha256:
            msg = (
                f"the model is bound to feature set {self.contract.feature_set} with contract "
                f"{self.contract.sha256[:12]}, found features of contract {sha256[:12]}: make them "
                "by the model's contract"
            )
            raise BindingMismatch(msg)

    def _version_findings(
        self,
        versions: Mapping[Modality, str],
        adopted: Mapping[Modality, str],
        modalities: Sequence[Modality],
    ) -> Iterator[Finding]:
        for modality in modalities:
            bound = resolve(self.embedding_versions[modality], modality, adopted)
            found = resolve(versions[modality], modality, adopted)
            if bound != found:
                problem = f"the model is bound to version {bound!r}, found {found!r}"
                yield Finding(f"{modality} embedding", problem)


def _refuse(verdict: Verdict, remedy: str) -> None:
    if not verdict.holds:
        msg = f"{'; '.join(map(str, verdict.findings))}: {remedy}"
        raise BindingMismatch(msg)
