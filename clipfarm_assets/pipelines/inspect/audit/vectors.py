"""Audit of the embedding stages: every row that says done has its vector, as it was recorded."""

import hashlib
from contextlib import suppress

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.checks import vector_problem
from clipfarm_assets.contracts.schema_lock import UNVERSIONED, BadLock, LockMismatch
from clipfarm_assets.contracts.statuses import STRATEGIES, Modality
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.flow import batched
from clipfarm_assets.pipelines.inspect.audit.findings import Findings
from clipfarm_assets.pipelines.inspect.audit.states import StageRows
from clipfarm_assets.pipelines.lock import NoLock, load_lock
from clipfarm_assets.pipelines.progress import Progress, Say
from clipfarm_assets.storage.npy import BadVector, npy_to_vector

_AT_ONCE = 512


def audit_vectors(
    deployment: Deployment, modality: Modality, rows: StageRows, findings: Findings, say: Say
) -> None:
    """Look at the vector of every row of a modality's stage, a bounded number at a time.

    Args:
        deployment: Whose store.
        modality: Which.
        rows: Of its stage.
        findings: Take what is wrong.
        say: Told how far it is.
    """
    dims = _locked_dims(deployment, modality)
    total = max(sum(deployment.ledger.counts(rows.stage).values()), len(rows.published))
    progress = Progress(f"audit {rows.stage}", total, say)
    for some in batched(rows, _AT_ONCE):
        done: dict[str, Item] = {}
        for item in some:
            key = deployment.layout.embedding(modality, item.video_id)
            if item.status == statuses.SUCCESS:
                done[key] = item  # where readers look, whatever an older tool's row names
                if item.version is not None and item.artifact_key != key:
                    told = f"expected artifact_key {key}, found {item.artifact_key}"
                    findings.add("dangling_pointer", f"{rows.stage} of {item.video_id}", told)
            elif item.status == statuses.FORGOTTEN and deployment.store.exists(key):
                told = f"the vector of {item.video_id} is there, which was removed for good"
                findings.add("forgotten_remains", key, told)
        for key, data in deployment.store.get_many(done):
            _look_at(key, data, done[key], dims, findings)
        findings.examined[f"{modality} vectors"] += len(done)
        findings.examined["ledger rows"] += len(some)
        progress.step(len(some))


def _locked_dims(deployment: Deployment, modality: Modality) -> dict[str, int]:
    """The length of the vectors of each embedding version that a lock in force names."""
    dims = {}
    for strategy in STRATEGIES:
        with suppress(NoLock, BadLock, LockMismatch):  # told by the strategy's own audit
            lock = load_lock(deployment, strategy)
            dims[lock.embedding_versions[modality]] = lock.dim(modality)
    return dims


def _look_at(
    key: str,
    data: bytes | FileNotFoundError,
    item: Item,
    dims: dict[str, int],
    findings: Findings,
) -> None:
    """One vector; `dims` learns the length of those of a version that it doesn't know."""
    if not isinstance(data, bytes):
        told = f"the ledger says that {item.video_id} is done, and there is no such object"
        findings.add("missing_object", key, told)
        return
    version = item.version or UNVERSIONED
    try:
        vector = npy_to_vector(data)
    except BadVector as error:
        findings.add("bad_vector", key, str(error))
        return
    problem = vector_problem(vector, dims.setdefault(version, len(vector)))
    if problem:
        findings.add("bad_vector", key, problem)
    elif item.content_sha256 not in {None, found := hashlib.sha256(data).hexdigest()}:
        told = f"expected the recorded sha256 {item.content_sha256:.12}…, found {found:.12}…"
        findings.add("other_bytes", key, told)


def forgotten_clips(rows: StageRows) -> frozenset[str]:
    """The clips that were removed for good, as a stage's rows say."""
    known = rows.deployment.ledger.ids_of_status(rows.stage, {statuses.FORGOTTEN})
    told = (i for i, row in rows.published.items() if row.status == statuses.FORGOTTEN)
    return frozenset([*known, *told])
