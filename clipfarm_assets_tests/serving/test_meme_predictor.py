"""What serves gives the very probabilities of the evaluation, or refuses."""

import io
from dataclasses import asdict, replace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.pipelines.memes.evaluation import evaluate
from clipfarm_assets.pipelines.memes.expert_store import expert_record, publish_expert, version_root
from clipfarm_assets.pipelines.memes.experts import train_expert
from clipfarm_assets.pipelines.memes.fusion import train_fusion
from clipfarm_assets.pipelines.memes.rows import iter_samples, read_index
from clipfarm_assets.serving.meme_artifacts import expert_artifacts, fusion_artifacts
from clipfarm_assets.serving.meme_predictor import load_predictor
from clipfarm_assets.serving.meme_registry import Candidate, find_version, promote
from clipfarm_assets.serving.version_list import BadRegistry, NoModel
from clipfarm_assets.storage.images import ImageLimits, rgb_png
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.meme_config import MemeEvaluationConfig, MemeFusionConfig
from clipfarm_assets.training.snapshot import BadSnapshot
from clipfarm_assets_tests.pipelines.memes import expert_kit
from clipfarm_assets_tests.pipelines.memes.expert_kit import LABEL, LAYOUT
from clipfarm_assets_tests.serving.meme_kit import verdict
from clipfarm_assets_tests.training.experts import kit

FUSION = MemeFusionConfig(hidden=8, fit=FitConfig(batch_size=16, max_epochs=2))
ALONG = FUSION.model_copy(update={"unfreeze_top_layers": 1})
FACTS = {"stand_ins": ["text", "vision"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with experts, a fusion model and its evaluation; and the cache it was made with."""
    folder = tmp_path_factory.mktemp("memes")
    store = ObjectStore.open(str(folder / "store"))
    expert_kit.fill(store)
    bases = {"text": kit.text_folder(folder), "vision": kit.vision_folder(folder)}
    for modality, base in bases.items():
        train_expert(store, LAYOUT, modality, LABEL, kit.quick_config(base=str(base)))
    train_fusion(store, LAYOUT, LABEL, FUSION, cache_dir=folder / "cache")
    found = evaluate(
        store, LAYOUT, LABEL, MemeEvaluationConfig(resamples=20), cache_dir=folder / "cache"
    )
    return store, found, folder / "cache"


@pytest.fixture(scope="module")
def trained_along(trained, tmp_path_factory):
    """The same, of fusion that trained a layer of each expert along."""
    store, _, cache = trained
    folder = tmp_path_factory.mktemp("along")
    other = copy_of(store, folder)
    train_fusion(store=other, layout=LAYOUT, label=LABEL, config=ALONG, cache_dir=cache)
    found = evaluate(other, LAYOUT, LABEL, MemeEvaluationConfig(resamples=20), cache_dir=cache)
    return other, found, cache


def copy_of(store, folder):
    other = ObjectStore.open(str(folder / "copy"))
    for info in store.list():
        other.put(info.key, store.get(info.key))
    return other


@pytest.fixture(scope="module")
def memes(trained):
    """Id, text and image of the labelled test memes, in the order of the evaluation."""
    store, found, _ = trained
    samples = {s.json["id"]: s for s in iter_samples(store, LAYOUT, "test", on_bad=print)}
    return [samples[meme_id] for meme_id in found.splits["test"].ids]


def serve(trained, system):
    """A predictor of one system, whatever the verdict of these few memes was."""
    store, found, cache = trained
    text, vision = (
        expert_artifacts(LAYOUT, expert_record(store, LAYOUT, m, LABEL)) for m in ("text", "vision")
    )
    head = fusion_artifacts(store, LAYOUT, LABEL, found.fusion.version)
    calibration = found.calibration[system]
    candidate = Candidate(
        artifacts={"text": text, "vision": vision, "fusion": {**head, **text, **vision}}[system],
        temperature=calibration.temperature.value,
        threshold=calibration.cut,
        metrics={},
        facts=FACTS,
        fusion_version=found.fusion.version if system == "fusion" else "",
    )
    made = verdict(fusion_wins=system == "fusion")
    if system == "vision":
        made = verdict(fusion_wins=False, best="vision")
    done = promote(
        store, LAYOUT, LABEL, classes=kit.CLASSES, verdict=made, candidates={system: candidate}
    )
    version = done.version.model_version
    return load_predictor(store, LAYOUT, model_version=version, cache_dir=cache)


def given(predictor, memes):
    inputs = {"texts": [m.txt for m in memes], "images": [m.png for m in memes]}
    names = {"text": "texts", "vision": "images"}
    return {names[m]: inputs[names[m]] for m in predictor.modalities}


@pytest.mark.parametrize("system", ["fusion", "text", "vision"])
def test_probabilities_are_exactly_those_of_the_evaluation(trained, memes, system):
    _, found, _ = trained
    predictor = serve(trained, system)
    judged = found.splits["test"]
    made = predictor.predict(**given(predictor, memes))
    assert np.array_equal(made.probabilities, judged.probabilities[system])
    assert np.array_equal(made.predicted, judged.predicted[system])
    assert (made.system, made.label, made.classes) == (system, LABEL, kit.CLASSES)
    assert made.names == tuple(kit.CLASSES[n] for n in judged.predicted[system])
    assert len(made) == len(memes)
    # One at a time, and in another order, as well.
    for number, meme in enumerate(memes):
        single = predictor.predict(**given(predictor, [meme]))
        assert np.array_equal(single.probabilities[0], made.probabilities[number])
    backwards = predictor.predict(**given(predictor, memes[::-1]))
    assert np.array_equal(backwards.probabilities[::-1], made.probabilities)


def test_fusion_that_trained_its_experts_along_is_served_as_it_was_judged(trained_along, memes):
    _, found, _ = trained_along
    predictor = serve(trained_along, "fusion")
    assert not predictor.fusion.architecture.are_experts_frozen
    made = predictor.predict(**given(predictor, memes))
    assert np.array_equal(made.probabilities, found.splits["test"].probabilities["fusion"])
    single = predictor.predict(**given(predictor, memes[3:4]))
    assert np.array_equal(single.probabilities[0], made.probabilities[3])


def test_what_the_evaluation_promoted_serves(trained, memes):
    store, found, cache = trained
    version = found.served.version
    predictor = load_predictor(store, LAYOUT, model_version=version.model_version, cache_dir=cache)
    made = predictor.predict(**given(predictor, memes))
    stored = pl.read_parquet(
        io.BytesIO(store.get(LAYOUT.evaluation(LABEL) + "predictions.parquet"))
    )
    rows = stored.filter((pl.col("split") == "test") & (pl.col("system") == version.system))
    assert rows["id"].to_list() == [meme.json["id"] for meme in memes]
    assert rows["probabilities"].to_list() == made.probabilities.tolist()
    assert rows["predicted"].to_list() == made.predicted.tolist()
    assert found.verdict.fusion_wins == (version.system == "fusion")


def test_other_files_of_one_picture_are_one_picture(trained, memes):
    """The shards hold PNG; BMP keeps every pixel too."""
    predictor = serve(trained, "fusion")
    file = io.BytesIO()
    Image.open(io.BytesIO(memes[0].png)).save(file, "BMP")
    one = predictor.predict([memes[0].txt], [memes[0].png])
    other = predictor.predict([memes[0].txt], [file.getvalue()])
    assert np.array_equal(one.probabilities, other.probabilities)


def test_images_are_taken_in_as_those_of_the_shards_were(trained):
    predictor = serve(trained, "vision")
    data = np.random.default_rng(5).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(data).save(file, "PNG")

    def within(**limits):
        version = replace(predictor.version, facts={"image_limits": limits})
        return replace(predictor, version=version)

    small = within(longest_side=20).predict(images=[file.getvalue()])
    shrunk = rgb_png(file.getvalue(), ImageLimits(longest_side=20)).data
    assert np.array_equal(small.probabilities, predictor.predict(images=[shrunk]).probabilities)
    plain = predictor.predict(images=[file.getvalue()])
    assert not np.array_equal(small.probabilities, plain.probabilities)
    with pytest.raises(ValueError, match="120 x 90 pixels, of 100 at most"):
        within(pixels=100).predict(images=[file.getvalue()])
    with pytest.raises(BadRegistry, match="must have limits of images"):
        within(colours=3).predict(images=[file.getvalue()])


def test_the_registry_has_the_limits_of_the_shards(trained):
    store, found, _ = trained
    index = read_index(store, LAYOUT, "test")
    assert index.image_limits == asdict(ImageLimits())
    assert found.served.version.facts["image_limits"] == index.image_limits


def test_blank_texts_are_those_of_a_meme_without_words(trained, memes):
    predictor = serve(trained, "fusion")
    blank = predictor.predict(["", " \n"], [memes[0].png] * 2)
    assert np.array_equal(blank.probabilities[0], blank.probabilities[1])
    assert not np.array_equal(
        blank.probabilities[0], predictor.predict([memes[0].txt], [memes[0].png]).probabilities[0]
    )


def test_what_is_needed_must_be_given(trained, memes):
    fusion, text = serve(trained, "fusion"), serve(trained, "text")
    png = memes[0].png
    with pytest.raises(ValueError, match=r"mood-v\d predicts by fusion: give images"):
        fusion.predict(["a"])
    with pytest.raises(ValueError, match="predicts by text: give texts"):
        text.predict(images=[png])
    with pytest.raises(ValueError, match="found 2 of text and 1 of vision"):
        fusion.predict(["a", "b"], [png])
    with pytest.raises(ValueError, match=r"at least one meme.*found 0 of text and 0 of vision"):
        fusion.predict([], [])
    with pytest.raises(TypeError, match="expected texts as a list of str, found str"):
        text.predict("a text")
    with pytest.raises(TypeError, match=r"as a list of str, found NoneType at 1 \(1 of 2\)"):
        text.predict(["a", None])
    with pytest.raises(TypeError, match="expected images as a list of bytes, found str at 0"):
        fusion.predict(["a"], ["a.png"])


def test_images_that_are_none_are_named_together(trained, memes):
    predictor = serve(trained, "fusion")
    png = memes[0].png
    with pytest.raises(ValueError, match=r"2 of 3 images can't be decoded: image 0: .*; image 2: "):
        predictor.predict(["a"] * 3, [png[:40], png, b"no image"])


@pytest.fixture
def copied(trained, tmp_path):
    """The store of another test, to be tampered with."""
    store, found, _ = trained
    serve(trained, "fusion")
    return copy_of(store, tmp_path), found


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("fusion/config.json", BadSnapshot),
        ("fusion/fusion_model.safetensors", BadSnapshot),
        ("text/expert.json", BadSnapshot),
        ("vision/expert.json", BadSnapshot),
        ("text/model.safetensors", ModelMismatch),
        ("vision/preprocessor_config.json", ModelMismatch),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(copied, tmp_path, name, error):
    store, found = copied
    version = find_version(store, LAYOUT, LABEL)
    assert version.system == "fusion"
    part, _, file = name.partition("/")
    roots = {
        "fusion": found.fusion.root(LAYOUT),
        **{
            modality: version_root(
                LAYOUT.expert(modality, LABEL), expert_record(store, LAYOUT, modality, LABEL)
            )
            for modality in ("text", "vision")
        },
    }
    key = roots[part] + file
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(error, match=file if error is BadSnapshot else f"not those of the {part}"):
        load_predictor(store, LAYOUT, label=LABEL, cache_dir=tmp_path / "cache")


def test_what_serves_outlives_the_expert_that_replaces_its_own(copied, tmp_path, memes):
    store, _ = copied
    before = load_predictor(store, LAYOUT, label=LABEL, cache_dir=tmp_path / "before")
    record = expert_record(store, LAYOUT, "text", LABEL)
    files = {"config.json": b"{}", "model.safetensors": b"another"}
    publish_expert(store, LAYOUT.expert("text", LABEL), record, files)
    after = load_predictor(store, LAYOUT, label=LABEL, cache_dir=tmp_path / "after")
    given = [m.txt for m in memes], [m.png for m in memes]
    assert (after.predict(*given).probabilities == before.predict(*given).probabilities).all()


def test_without_a_promoted_model_there_is_no_predictor(tmp_path):
    store = ObjectStore.open(str(tmp_path / "store"))
    with pytest.raises(NoModel, match="materialise memes/evaluation for partition 'mood'"):
        load_predictor(store, LAYOUT, label=LABEL, cache_dir=tmp_path)
