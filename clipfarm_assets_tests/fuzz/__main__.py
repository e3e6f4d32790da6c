"""The same parsers, fuzzed by what their code does: ``python -m clipfarm_assets_tests.fuzz npy``.

Atheris (extra ``fuzz``) runs the parser with its branches traced, and keeps every input that
reached a new one as a start for the next. An input that raises what isn't documented ends it with
an exit code, and lies in the folder as ``crash-…``; copy it into a test of its own.
"""

import argparse
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["clipfarm_assets"]):
    from clipfarm_assets_tests.fuzz.targets import TARGETS, Target

_MOST_BYTES = 1 << 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="how long (60)")
    parser.add_argument(
        "--folder", type=Path, default=Path(".fuzz"), help="where inputs are kept (.fuzz)"
    )
    asked = parser.parse_args()
    _fuzz(asked.target, TARGETS[asked.target], asked.folder, asked.seconds)


def _fuzz(name: str, target: Target, folder: Path, seconds: int) -> None:
    """Does not come back: libFuzzer ends the process."""
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, valid in enumerate(target.valid):
        (corpus / f"valid-{number}").write_bytes(valid)
    words = folder / f"{name}.dict"
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens if token))
    flags = [
        f"-max_total_time={seconds}",
        f"-max_len={_MOST_BYTES}",
        f"-dict={words}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], target.check)
    atheris.Fuzz()


def _escaped(token: bytes) -> str:
    """As libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    main()
