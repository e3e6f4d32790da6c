"""The canary texts: metadata and transcripts in several languages, from a word to a few pages."""

import json
from collections.abc import Iterator
from typing import Final

from clipfarm_assets.encoders.base import Source

_BREAD_RECIPE: Final = (
    "Today we bake a simple sourdough bread. You need five hundred grams of flour, ten grams of "
    "salt, a ripe starter and water. Mix everything with your hands, let the dough rest for half "
    "an hour, then fold it four times. Leave it to rise until it has doubled."
)
_BREAD_LONG: Final = (
    "Welcome back to my kitchen. Last week many of you asked why your loaf stays flat. The oven "
    "must be hot, and the dough must not be too wet. I weigh the flour, I weigh the water, and I "
    "write down the temperature of the room. After the second fold the dough feels like a pillow. "
    "Shape it gently, put it into a basket, cover it with a towel and let it sleep in the fridge. "
    "In the morning cut the top with a sharp blade and bake it in a closed pot for thirty minutes. "
    "Then take off the lid so that the crust turns brown and crisp. Listen to it crackle. "
)

_Fields = tuple[str, str, str, str]
"""Title, description, query, transcript."""

_TEXTS: Final[dict[str, _Fields]] = {
    "bread": ("How to bake sourdough bread", "Easy recipe #baking", "bread recipe", _BREAD_RECIPE),
    "bread-long": (
        "Why your sourdough bread stays flat",
        "All the mistakes I made with flour, water and salt. " * 4,
        "bread recipe",
        _BREAD_LONG * 4,
    ),
    "football": (
        "Last minute goal wins the derby",
        "Highlights of the match #football",
        "football highlights",
        (
            "Ninety minutes on the clock, one last corner. He lifts his arm, the ball comes "
            "in high, the keeper stays on his line, and the captain heads it into the net! "
            "The stadium explodes."
        ),
    ),
    "tennis": (
        "The longest rally of the final",
        "Forty-two shots on centre court",
        "tennis highlights",
        (
            "He serves wide, she returns down the line. Backhand, backhand, a drop shot, and "
            "she gets there! The crowd is on its feet, match point saved for the third time."
        ),
    ),
    "phone": (
        "This phone is half the price",
        "Unboxing and camera test. Links below.",
        "phone review",
        (
            "The screen is bright, the battery lasts two days, and the camera is surprisingly"
            " good at night. What I do not like is the plastic frame and the slow charger in "
            "the box."
        ),
    ),
    "laptop": (
        "I replaced my laptop with this",
        "Benchmarks, battery life, and noise of the fan",
        "laptop review",
        (
            "The processor is fast enough to cut video, the keyboard is quiet, the display is"
            " sharp, but the battery is empty after five hours and the charger is as heavy as"
            " a brick."
        ),
    ),
    "german": (
        "Die schönste Wanderung der Alpen",
        "Drei Tage von Hütte zu Hütte",
        "wandern alpen",
        (
            "Wir starten um sechs Uhr im Tal. Der Weg steigt steil durch den Wald, dann "
            "öffnet sich der Blick auf den Gletscher. Auf der Hütte gibt es Suppe, Käse und "
            "ein Bett unterm Dach."
        ),
    ),
    "french": (
        "Randonnée autour du lac",
        "Deux jours à pied avec une tente",
        "randonnée lac",
        (
            "Nous partons de bonne heure, le brouillard couvre encore le lac. Le sentier "
            "monte entre les sapins, et au sommet on voit toute la vallée. Le soir nous "
            "dormons sous les étoiles."
        ),
    ),
    "spanish": (
        "Receta de tortilla de patatas",
        "Con cebolla o sin cebolla",
        "receta tortilla",
        (
            "Pelamos las patatas, las cortamos en láminas finas y las freímos despacio en "
            "aceite de oliva. Batimos seis huevos, mezclamos todo y damos la vuelta con un "
            "plato."
        ),
    ),
    "portuguese": (
        "Receita de pão de queijo",
        "Com queijo fresco",
        "receita pão de queijo",
        (
            "Aquecemos o leite com o óleo e o sal, juntamos o polvilho e mexemos bem. Depois "
            "vêm dois ovos e o queijo ralado. Fazemos bolinhas e levamos ao forno quente."
        ),
    ),
    "chinese": (
        "三分钟学会番茄炒蛋",
        "家常菜 简单又好吃",
        "番茄炒蛋 做法",
        "先把鸡蛋打散,加一点盐。番茄切成小块。锅里放油,先炒鸡蛋,再炒番茄,最后放一点糖和葱花。",
    ),
    "japanese": (
        "簡単な卵焼きの作り方",
        "お弁当にぴったり 料理",
        "卵焼き 料理 作り方",
        "卵を三つ割って、砂糖と塩を少し入れて混ぜます。油をひいて薄く焼き、手前から巻いていきます。",
    ),
    "arabic": (
        "أجمل الأماكن في المدينة القديمة",
        "جولة قصيرة في السوق",
        "سياحة المدينة",
        "نبدأ من الباب الكبير ثم نمشي بين الدكاكين. هنا تجد التوابل والقماش والشاي بالنعناع.",
    ),
    "persian": (
        "گردش در شهر قدیمی",
        "یک روز در بازار بزرگ",
        "گردشگری شهر",
        (
            "از دروازه بزرگ شروع می‌کنیم و میان مغازه‌ها راهمی‌رویم. "
            "اینجا ادویه و پارچه و چای پیدا می‌شود."
        ),
    ),
    "shout": ("LOL 😂😂 #fyp #viral", "", "funny cats", "no no no NO!"),
    "giggle": ("so funny 😂 #fyp", "#viral", "funny cats", "oh no, the cat!"),
}


def text_canaries() -> Iterator[Source]:
    """Sixteen transcripts with the text fields of their metadata rows."""
    for name, (title, description, query, transcript) in _TEXTS.items():
        raw = json.dumps({"transcript": transcript}, ensure_ascii=False).encode()
        metadata = {"title": title, "description": description, "query": query}
        yield Source(f"canary-{name}", raw, metadata)
