"""What the policies of deploy/ allow."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DEPLOY = Path(__file__).parents[1] / "deploy"
_ARN = "arn:aws:s3:::my-bucket"


@dataclass(frozen=True)
class Grant:
    """One action on the keys of one pattern; of the bucket itself the pattern is empty."""

    sid: str
    action: str
    pattern: str

    def covers(self, action: str, key: str) -> bool:
        """Whether it allows this, as S3 decides: ``*`` is any characters, of all keys."""
        if action != self.action:
            return False
        if action == "s3:ListBucket":
            return self.pattern == ""
        expression = ".*".join(map(re.escape, self.pattern.removeprefix("/").split("*")))
        return re.fullmatch(expression, key, re.DOTALL) is not None


def grants(name: str) -> list[Grant]:
    """All of a policy, which must be of plain grants and nothing else."""
    policy = json.loads((DEPLOY / name).read_text())
    assert policy.keys() == {"Version", "Statement"}
    found = []
    for statement in policy["Statement"]:
        assert statement.keys() == {"Sid", "Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        for action in _each(statement["Action"]):
            for resource in _each(statement["Resource"]):
                bucket, rest = resource[: len(_ARN)], resource[len(_ARN) :]
                assert bucket == _ARN
                found.append(Grant(statement["Sid"], action, rest))
    return found


def _each(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def refused(name: str, asked: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """What a policy does not allow of some actions and keys."""
    given = grants(name)
    return {(a, k) for a, k in asked if not any(grant.covers(a, k) for grant in given)}


def unused(name: str, asked: Iterable[tuple[str, str]], sids: str) -> set[Grant]:
    """What a policy allows under statements whose id begins so, and was not asked for."""
    seen = set(asked)
    return {
        grant
        for grant in grants(name)
        if grant.sid.startswith(sids) and not any(grant.covers(a, k) for a, k in seen)
    }
