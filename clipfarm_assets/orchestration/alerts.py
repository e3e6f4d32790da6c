"""Alerts: one JSON document, posted to an address that the environment names, or logged.

``CLIPFARM_ALERT_WEBHOOK`` is an ``http(s)`` address; it is a secret in itself and shown nowhere.
The field ``text`` is what chat services show. ``CLIPFARM_UI_URL`` is where the webserver is, for a
link to the run.

An alert is posted once, within seconds or not at all. Whoever sends it decides what a failure
means: a sensor's tick fails visibly.
"""

import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import IO, Final, Literal
from urllib.parse import urlsplit

from clipfarm_assets.orchestration.redaction import redacted

WEBHOOK_VARIABLE: Final = "CLIPFARM_ALERT_WEBHOOK"
UI_VARIABLE: Final = "CLIPFARM_UI_URL"

_SECONDS: Final = 10.0
_LONGEST: Final = 2000


class AlertNotSent(RuntimeError):  # noqa: N818 - a state of the world
    """The address didn't take the alert; says why, and not what the address is."""


@dataclass(frozen=True)
class Alert:
    """Something that a person should look at.

    Attributes:
        what: Which kind.
        subject: A job, a check or an asset.
        message: What happened, in a sentence or some lines.
        partition: Of which partition or range of them; empty for none.
        run_id: Of which run; empty for none.
        will_retry: Whether Dagster starts the run again by itself.
    """

    what: Literal["run_failed", "check_failed", "overdue", "fresh_again"]
    subject: str
    message: str
    partition: str = ""
    run_id: str = ""
    will_retry: bool = False

    def document(self, environ: Mapping[str, str]) -> dict[str, object]:
        """What is posted: nothing in it is a secret."""
        message = redacted(self.message, environ)
        if len(message) > _LONGEST:
            message = f"{message[:_LONGEST]}… ({len(message)} characters)"
        of = f" {self.partition}" if self.partition else ""
        again = " (it is started again)" if self.will_retry else ""
        headline = f"{self.what.replace('_', ' ')}: {self.subject}{of}{again}"
        root = (environ.get(UI_VARIABLE) or "").rstrip("/")
        return {
            "text": f"{headline}\n{message}",
            "what": self.what,
            "subject": self.subject,
            "message": message,
            "partition": self.partition,
            "run_id": self.run_id,
            "run_url": f"{root}/runs/{self.run_id}" if root and self.run_id else "",
            "will_retry": self.will_retry,
        }


def report(
    alert: Alert,
    log: logging.Logger,
    environ: Mapping[str, str] = os.environ,
    seconds: float = _SECONDS,
) -> None:
    """Log the alert, and post it if an address is set.

    Args:
        alert: What to tell.
        log: Where to.
        environ: Names the address.
        seconds: How long the address may be silent.

    Raises:
        AlertNotSent: It refused, or didn't answer in time. It isn't tried again.
    """
    document = alert.document(environ)
    log.warning("%s", document["text"])
    address = environ.get(WEBHOOK_VARIABLE)
    if address:
        _post(address, json.dumps(document).encode(), seconds)


def _post(address: str, body: bytes, seconds: float) -> None:
    shown = urlsplit(address).hostname or "no host"
    if urlsplit(address).scheme not in {"http", "https"}:
        msg = f"{WEBHOOK_VARIABLE} must be an http:// or https:// address"
        raise AlertNotSent(msg)
    request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
        address, body, {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with _OPENER.open(request, timeout=seconds):
            pass  # what it says is of no use to us
    except urllib.error.HTTPError as error:
        error.close()
        msg = f"the alert was not sent: {shown} answered {error.code}; look at {WEBHOOK_VARIABLE}"
        raise AlertNotSent(msg) from None
    except (OSError, HTTPException, ValueError) as error:
        # Without the library's own text, which may hold the address.
        msg = f"the alert was not sent to {shown}: {type(error).__name__}"
        raise AlertNotSent(msg) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Whoever the address sends us on to was not named by the deployment."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        """Never."""


_OPENER: Final = urllib.request.build_opener(_NoRedirect)
