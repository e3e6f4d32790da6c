from clipfarm_assets.encoders.models import hash_model_dir, resolved_directory
from clipfarm_assets.training.experts.stand_ins import (
    TEXT_STAND_IN,
    VISION_STAND_IN,
    stand_in_text,
    stand_in_vision,
    vocabulary,
)
from clipfarm_assets.training.experts.text import TextExpert
from clipfarm_assets.training.experts.vision import VisionExpert
from clipfarm_assets_tests.processes import call
from clipfarm_assets_tests.training.experts import kit


def hashes(folder):
    return [hash_model_dir(build(folder)) for build in (kit.text_folder, kit.vision_folder)]


def test_two_processes_build_the_same_bytes(tmp_path, text_dir, vision_dir):
    assert call(hashes, tmp_path) == [hash_model_dir(text_dir), hash_model_dir(vision_dir)]


def test_full_size_is_that_of_the_base_models(tmp_path):
    text = TextExpert.load(stand_in_text(tmp_path, kit.WORDS))
    vision = VisionExpert.load(stand_in_vision(tmp_path))
    assert (text.dim, vision.dim) == (768, 768)


def test_they_are_named_and_marked_as_what_they_are(text_dir, vision_dir):
    assert (text_dir.name, vision_dir.name) == (TEXT_STAND_IN, VISION_STAND_IN)
    for folder in (text_dir, vision_dir):
        assert "stand-in" in folder.name
        assert resolved_directory(folder, folder.name).is_stand_in


def test_words_are_ordered_by_frequency_then_spelling_wherever_they_come_from():
    texts = ["b a c", "c b", "zebra c"]
    words = [piece for piece in vocabulary(texts) if not piece.startswith("##")]
    assert words == [piece for piece in vocabulary(reversed(texts)) if not piece.startswith("##")]
    assert words[-1] == "zebra"
    frequent = vocabulary(["often often rare", "also rare often"])[-3:]
    assert frequent == ["often", "rare", "also"]


def test_a_word_that_was_never_counted_is_read_letter_by_letter(text_dir):
    expert = TextExpert.load(text_dir)
    unknown, known = expert.tokenise(["zzz", "cat"])["attention_mask"].sum(dim=1).tolist()
    assert (unknown, known) == (5, 3)


def test_other_images_have_other_hidden_states(vision_dir):
    """Norms that were drawn near zero would leave nothing of the image."""
    expert = VisionExpert.load(vision_dir)
    hidden = expert.represent([expert.prepare(image) for image in kit.some_images(8)]).hidden
    spread = hidden.std(axis=0).mean() / hidden.std()
    assert spread > 0.1
