"""The console logger: one short line a message, so that progress can be read while it runs.

For runs that a person watches in a terminal, whose run config names it
(``loggers: {console: {}}``), as the demo's does. Dagster's own events, and the same messages with
their full context, are in the event log as always.
"""

import logging
import sys
from typing import Any

import dagster as dg


class _Short(logging.Formatter):
    """``17:34:41 clips__video_embeddings  video 2026-02-05: 12/20, 3.1/s, 3 s left``."""

    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = getattr(record, "dagster_meta", None) or {}
        message = meta.get("orig_message") or record.getMessage()
        step = meta.get("step_key") or meta.get("job_name") or record.name
        line = f"{self.formatTime(record, '%H:%M:%S')} {step}  {message}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


@dg.logger(
    config_schema={"log_level": dg.Field(str, default_value="INFO", is_required=False)},
    description="One short line a message, to stderr.",
)
def short_console(context: dg.InitLoggerContext) -> logging.Logger:
    """The logger of one run."""
    # Not from the registry: every run has its own handler, and would add one to a shared logger.
    logger = logging.Logger("clipfarm")  # noqa: LOG001
    logger.setLevel(context.logger_config["log_level"].upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Short())
    logger.addHandler(handler)
    return logger
