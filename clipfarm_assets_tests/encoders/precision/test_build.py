"""The line that names a build: what may change a result changes it, and torch is not loaded."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from clipfarm_assets.encoders.precision import build
from clipfarm_assets.encoders.precision.build import build_fingerprint

CPUINFO = """processor\t: 0
model name\t: Some Processor
flags\t\t: fpu sse2 avx2 amx_bf16 fma

processor\t: 1
model name\t: Some Processor
flags\t\t: fpu sse2 avx2 amx_bf16 fma
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "dev").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO)
    return tmp_path


@pytest.fixture
def no_torch(monkeypatch):
    """As before anything has loaded it; a build for accelerators, on Linux."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    versions = {"torch": "2.13.0"}
    monkeypatch.setattr(build, "version", lambda name: versions.get(name) or version(name))
    monkeypatch.setattr(build.platform, "system", lambda: "Linux")
    yield versions
    assert "torch" not in sys.modules


def gpu(root, number, model):
    folder = root / f"proc/driver/nvidia/gpus/{number}"
    folder.mkdir(parents=True)
    (folder / "information").write_text(f"Model: \t {model}\nIRQ:   7\n")
    (root / "dev/nvidiactl").touch()


def test_it_names_libraries_processor_and_device(root, no_torch):
    line = build_fingerprint("cpu", {}, root)
    for library in ("clipfarm-assets", "transformers", "sentence-transformers"):
        assert f"{library} {version(library)}, " in line
    assert "torch 2.13.0, " in line
    assert "Some Processor (units " in line
    assert line.endswith(", on cpu")


@pytest.mark.parametrize("change", ["name", "units", "torch", "variable"])
def test_whatever_may_change_a_result_changes_it(root, no_torch, change):
    before = build_fingerprint("cpu", {}, root)
    environ = {}
    if change == "name":
        (root / "proc/cpuinfo").write_text(CPUINFO.replace("Some", "Another"))
    elif change == "units":
        (root / "proc/cpuinfo").write_text(CPUINFO.replace("amx_bf16 ", ""))
    elif change == "torch":
        no_torch["torch"] = "2.14.0"
    else:
        environ = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert build_fingerprint("cpu", environ, root) != before


def test_what_cannot_change_a_result_does_not(root, no_torch):
    before = build_fingerprint("cpu", {}, root)
    (root / "proc/cpuinfo").write_text(
        CPUINFO.replace("sse2", "sse2 hypervisor").replace("avx2 amx_bf16", "amx_bf16 avx2") * 2
    )
    assert build_fingerprint("cpu", {"HOME": "/elsewhere", "OMP_NUM_THREADS": "7"}, root) == before


def test_auto_is_the_cpu_where_there_is_nothing_else(root, no_torch):
    assert build_fingerprint("auto", {}, root) == build_fingerprint("cpu", {}, root)


def test_auto_is_the_cpu_where_torch_knows_nothing_else(root, no_torch):
    gpu(root, 0, "Some GPU")
    no_torch["torch"] = "2.13.0+cpu"
    assert build_fingerprint("auto", {}, root) == build_fingerprint("cpu", {}, root)


@pytest.mark.parametrize("node", ["nvidiactl", "kfd", "dxg"])
def test_auto_beside_an_accelerator_is_torchs_to_tell(root, no_torch, node):
    (root / "dev" / node).touch()
    assert build_fingerprint("auto", {}, root) is None


def test_auto_on_another_system_is_torchs_to_tell(root, no_torch, monkeypatch):
    monkeypatch.setattr(build.platform, "system", lambda: "Darwin")
    assert build_fingerprint("auto", {}, root) is None


def test_a_gpu_is_named_by_its_driver(root, no_torch):
    assert build_fingerprint("cuda", {}, root) is None, "nobody tells which"
    gpu(root, 0, "Some GPU")
    gpu(root, 1, "Some GPU")
    assert build_fingerprint("cuda", {}, root).endswith(", on cuda Some GPU")
    gpu(root, 2, "Another GPU")
    assert build_fingerprint("cuda", {}, root) is None, "which of them is used, only torch knows"


def test_it_is_the_same_with_torch_loaded_and_without():
    code = """
import sys
from clipfarm_assets.encoders.precision.build import build_fingerprint
without = build_fingerprint("auto")
assert "torch" not in sys.modules
import torch
print(without is None or without == build_fingerprint("auto"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
