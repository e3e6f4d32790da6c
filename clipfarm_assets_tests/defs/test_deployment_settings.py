"""Settings that are a part of identity come from the environment, so that every run agrees."""

import json
import os
import subprocess
import sys
from pathlib import Path

# What a schedule does: a run with an empty run config, before and after one with the same settings
# from the launchpad. In a process of its own, because the definitions read the environment once.
RUNS = """
import json, sys
from pathlib import Path
import dagster as dg
from clipfarm_assets_tests.defs import kit

bench = kit.Bench(Path(sys.argv[1]))
bench.add_clips(("a", "2026-02-05"), ("b", "2026-02-05"))
launchpad = {"ops": {
    "clips__video_embeddings": {"config": {"pooling": "mean"}},
    "clips__audio_embeddings": {"config": {"max_audio_seconds": 30.0}},
    "clips__text_embeddings": {"config": {"long_text": "chunk_mean"}},
    "clips__clip_index": {"config": {"include_captured_at_in_hash": True}},
}}
out = {}
with dg.DagsterInstance.ephemeral() as instance:
    for name, config in (("launchpad", launchpad), ("schedule", None)):
        bench.run(instance, "clips_daily", "2026-02-05", config=config)
        out[name] = {
            modality: kit.materialised(instance, f"{modality}_embeddings")["2026-02-05"][
                "worked_on"
            ].value
            for modality in ("video", "audio", "text")
        }
print(json.dumps(out))
"""

VARIABLES = {
    "CLIPFARM_VIDEO_CONFIG": {"pooling": "mean"},
    "CLIPFARM_AUDIO_CONFIG": {"max_audio_seconds": 30},
    "CLIPFARM_TEXT_CONFIG": {"long_text": "chunk_mean"},
    "CLIPFARM_INDEX_CONFIG": {"include_captured_at_in_hash": True},
}


def python(code, *arguments, **environ):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environ},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_scheduled_run_keeps_what_the_deployment_sets(tmp_path):
    environ = {name: json.dumps(fields) for name, fields in VARIABLES.items()}
    done = python(RUNS, tmp_path, **environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "launchpad": {"video": 2, "audio": 2, "text": 2},
        "schedule": {"video": 0, "audio": 0, "text": 0},
    }


def test_a_wrong_field_stops_loading_with_a_sentence():
    name = "CLIPFARM_VIDEO_CONFIG"
    done = python("import clipfarm_assets.definitions", **{name: '{"pool": "mean"}'})
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ValueError: {name} has no field 'pool': expected some of ")
