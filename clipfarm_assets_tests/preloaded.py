"""Imported by the server of `processes` only: what its processes are forked with."""

import gc

# Heavy and unused, because the import is the point.
import sklearn.ensemble
import torch
import transformers.modeling_utils

from clipfarm_assets_tests.pipelines import kit
from clipfarm_assets_tests.training import bench

assert all((bench, kit, sklearn.ensemble, torch, transformers))

gc.collect()
gc.freeze()
