"""A finished expert's outputs are taken for the classes that it says they are, or for none."""

import pytest

from clipfarm_assets.training.experts.loading import WrongClasses, check_classes

OURS = ("not_abuse_hate", "abuse_hate")


@pytest.mark.parametrize("found", [OURS, ("LABEL_0", "LABEL_1")])
def test_the_names_themselves_and_numbers_for_want_of_names_are_taken(found):
    check_classes(found, OURS, "mine")


@pytest.mark.parametrize(
    "found",
    [
        ("hate", "no-hate"),  # the other way round, which the number of classes does not tell
        ("abuse_hate", "not_abuse_hate"),
        ("LABEL_1", "LABEL_0"),
        ("LABEL_0", "abuse_hate"),
        ("not_abuse_hate",),
        ("LABEL_0", "LABEL_1", "LABEL_2"),
    ],
)
def test_other_names_are_refused_with_what_to_do(found):
    with pytest.raises(WrongClasses, match="must tell the classes not_abuse_hate, abuse_hate"):
        check_classes(found, OURS, "mine")
    with pytest.raises(WrongClasses, match=r"set `class_names`.*or give it as `base`"):
        check_classes(found, OURS, "mine")


def test_other_names_are_taken_where_the_config_says_what_they_mean():
    names = {"no-hate": "not_abuse_hate", "hate": "abuse_hate"}
    check_classes(("no-hate", "hate"), OURS, "mine", names)
    with pytest.raises(WrongClasses, match="in this order: found abuse_hate, not_abuse_hate"):
        check_classes(("hate", "no-hate"), OURS, "mine", names)


def test_numbers_may_be_given_names_too():
    """Whose authors wrote on the model's card, and not into its files, that 0 is hate."""
    names = {"LABEL_0": "abuse_hate", "LABEL_1": "not_abuse_hate"}
    with pytest.raises(WrongClasses, match="in this order"):
        check_classes(("LABEL_0", "LABEL_1"), OURS, "mine", names)


@pytest.mark.parametrize("names", [{"hate": "abuse_hate"}, {"nohate": "not_abuse_hate"}])
def test_names_that_do_not_name_each_class_of_the_expert_are_refused(names):
    with pytest.raises(WrongClasses, match="`class_names` must name each of no-hate, hate"):
        check_classes(("no-hate", "hate"), OURS, "mine", names)
