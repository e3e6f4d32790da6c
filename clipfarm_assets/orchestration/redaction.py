"""What must not leave the deployment in a message, taken out of it."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Final

HIDDEN: Final = "…"

_USER_OF_URL: Final = re.compile(r"(?<=://)[^\s/@'\"]+@")
_PARAMETER_OF_URL: Final = re.compile(
    r"([?&][\w-]*(?:password|passwd|token|secret|signature)=)[^\s&'\"]+", re.IGNORECASE
)
_SECRET_NAME: Final = re.compile(
    r"SECRET|PASSW|TOKEN|CREDENTIAL|ACCESS_KEY|API_KEY|WEBHOOK", re.IGNORECASE
)
# A shorter one is a word: taken out, it would be told by the gap.
_SHORTEST: Final = 6


def redacted(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without passwords of urls and without the environment's secrets.

    Our own messages hold none; those of servers and libraries may.

    Args:
        text: A message, from whomever.
        environ: The values of variables whose names speak of secrets are taken out, and of all
            others the passwords of urls.
    """
    for secret in sorted(set(_secrets(environ)), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _PARAMETER_OF_URL.sub(rf"\1{HIDDEN}", text)
    return _USER_OF_URL.sub(f"{HIDDEN}@", text)


def _secrets(environ: Mapping[str, str]) -> Iterator[str]:
    for name, value in environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST:
            yield value
        for user in _USER_OF_URL.findall(value):
            password = user.removesuffix("@").partition(":")[2]
            if len(password) >= _SHORTEST:
                yield password
