"""Words that tell a clip's topic and sentiment: title, description, transcript.

The topic chooses the vocabulary, the sentiment how many of the judging words are glad ones.
Titles and descriptions also carry what real ones do: line breaks, doubled quotes, emoji, other
scripts, nothing at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clipfarm_assets.demo.planted import Topic, Traits

_TOPIC_WORDS: Final[Mapping[Topic, Sequence[str]]] = {
    "cooking": ("recipe", "kitchen", "butter", "garlic", "oven", "dough", "sauce", "pepper"),
    "sport": ("match", "goal", "stadium", "training", "referee", "sprint", "league", "coach"),
    "music": ("guitar", "melody", "concert", "singer", "rhythm", "chorus", "piano", "studio"),
    "school": ("lesson", "teacher", "exam", "science", "history", "homework", "student", "maths"),
}
_GLAD: Final = ("wonderful", "amazing", "happy", "beautiful", "delightful", "best", "lovely")
_SAD: Final = ("terrible", "boring", "awful", "ugly", "disappointing", "worst", "sad")
_FILLERS: Final = ("today", "here is", "look at", "and then", "we found", "after that", "with")

_DESCRIPTIONS: Final = (
    '{sentence}\n.\nDisclaimer: ""fair use"" for criticism,\ncommentary\n\n#{topic}  \n#funny',
    "Thank you 🥰\n\nPlease subscribe 😭 🙏\n#{topic}",
    "",
    "आज का वीडियो: {sentence}\nधन्यवाद 🙏",
    "{sentence}, and \"more\", 'much more'.\r\n#shorts #{topic}",
    "This video is about {topic} only.",
)


@dataclass(frozen=True, slots=True)
class Words:
    """What is written about a clip and said in it; `language` as in the metadata row."""

    title: str
    description: str
    transcript: str
    query: str
    language: str


def write_words(traits: Traits, rng: np.random.Generator) -> Words:
    """A clip's words."""
    language, title = _title(traits, rng)
    description = _DESCRIPTIONS[int(rng.integers(len(_DESCRIPTIONS)))].format(
        sentence=_sentence(traits, rng), topic=traits.topic
    )
    query = traits.topic if rng.random() < 0.5 else "shorts"
    return Words(title, description, speak(traits, rng, sentences=5), query, language)


def speak(traits: Traits, rng: np.random.Generator, sentences: int) -> str:
    """A transcript of so many sentences, 10 words or so each."""
    return " ".join(f"{_sentence(traits, rng).capitalize()}." for _ in range(sentences))


def _title(traits: Traits, rng: np.random.Generator) -> tuple[str, str]:
    plain = _sentence(traits, rng)
    languages = ("en", "en", "hi", "id", "")
    language = languages[int(rng.integers(len(languages)))]
    title = {
        "en": f"{plain} 😂😂 #shorts #{traits.topic}",
        "hi": f"होली स्पेशल🥰🙏 {plain} #shorts",
        "id": f"Beginilah, {plain} #shorts #fyp",
        "": f'"{plain}",...🗿 #ytshorts',
    }[language]
    return language, title


def _sentence(traits: Traits, rng: np.random.Generator) -> str:
    topic = rng.choice(_TOPIC_WORDS[traits.topic], size=3, replace=False)
    judging = [
        str(rng.choice(_GLAD if rng.random() < traits.unit("sentiment") else _SAD))
        for _ in range(3)
    ]
    filler = rng.choice(_FILLERS, size=2)
    parts = [filler[0], judging[0], topic[0], filler[1], judging[1], topic[1], judging[2], topic[2]]
    return " ".join(str(part) for part in parts)
