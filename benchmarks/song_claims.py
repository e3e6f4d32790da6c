"""What fusion of songs claims, on corpora of many seeds. ``python -m benchmarks.song_claims``.

Each seed makes a corpus of the demo's law and size, with splits and fits of its own, and sends it
through the pipeline, with modality dropout and without. Three things are claimed of it:

1. every strategy is better than the best modality alone, beyond chance (see `judge_fusion`);
2. without a modality none loses more than its bound, which follows from what the corpus plants;
3. without lyrics, whose absence training hardly ever sees, less is lost with modality dropout.
   After the warm start hardly anything is left to spare: ``--warm-start 0`` fits all at once.

The first tables are of the single corpora, the last of all of them: intervals there are Student's
over seeds. Nothing is timed. Settings are the demo's, developed on seeds 1, 2, 3, 7 and 42.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

from benchmarks.common import begin, markdown, options

SEEDS: Final = (101, 102, 103, 104, 105)
RARELY_ABSENT: Final = "text"
_LEVEL: Final = 0.95


def main() -> None:
    """Print the tables."""
    from clipfarm_assets.demo.songs.plan import SONGS

    parser = options(__doc__, repeats=None, folder="where corpora and models are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of the corpora")
    parser.add_argument("--songs", type=int, default=SONGS, help="of a corpus, of 4 segments each")
    parser.add_argument("--warm-start", type=int, help="epochs, in place of the demo's")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="to judge on")
    asked = begin(parser)
    with tempfile.TemporaryDirectory(prefix="clipfarm-songs-") as passing:
        folder = asked.folder or Path(passing)
        found: list[Outcome] = []
        for seed in asked.seeds:
            found += outcomes(folder, seed, asked.songs, asked.warm_start, asked.split)
            print(f"seed {seed}: {_wins(found[-4:])}", flush=True)
    tables = (against_single(found), losses(found), over_seeds(found), said_of(found))
    print("\n" + "\n\n".join(tables))


@dataclass(frozen=True)
class Outcome:
    """A strategy on the corpus of a seed.

    Attributes:
        seed: Of the corpus.
        strategy: Which.
        single: The best modality alone.
        single_macro_f1: Its macro-F1.
        macro_f1: The strategy's.
        low: Lower bound of the difference to the modality that is hardest to beat.
        wins: Whether it is better than every modality alone.
        lost: Modality -> macro-F1 lost without it.
        bounds: Modality -> most that may be lost.
        lost_without_dropout: As `lost`, fitted without modality dropout.
        left: Macro-F1 without the modality that is rarely absent.
        left_without_dropout: Likewise, fitted without modality dropout.
    """

    seed: int
    strategy: str
    single: str
    single_macro_f1: float
    macro_f1: float
    low: float
    wins: bool
    lost: Mapping[str, float]
    bounds: Mapping[str, float]
    lost_without_dropout: Mapping[str, float]
    left: float
    left_without_dropout: float

    @property
    def advantage(self) -> float:
        """Over the best modality alone."""
        return self.macro_f1 - self.single_macro_f1


def outcomes(
    folder: Path, seed: int, songs: int, warm_start: int | None, split: str
) -> list[Outcome]:
    """Make a corpus, fit everything, and judge; what `folder` has of it is not made again."""
    from clipfarm_assets.demo.songs.config import demo_config
    from clipfarm_assets.demo.songs.corpus import make_songs
    from clipfarm_assets.fusion.options import STRATEGIES
    from clipfarm_assets.pipelines.songs.alignment import check_alignment
    from clipfarm_assets.pipelines.songs.comparison import compare
    from clipfarm_assets.pipelines.songs.fusion import train_fusion
    from clipfarm_assets.pipelines.songs.segments import read_segments
    from clipfarm_assets.pipelines.songs.splits import make_splits
    from clipfarm_assets.storage.objects import ObjectStore
    from clipfarm_assets.storage.song_layout import SongLayout
    from clipfarm_assets.training.song_config import song_config

    told: dict[str, Any] = demo_config(songs, seed)
    if warm_start is not None:
        told["training"]["warm_start_epochs"] = warm_start
    config, layout = song_config(told), SongLayout()
    store = ObjectStore.open(str(folder / f"seed={seed}-songs={songs}"))
    if not store.exists(layout.metadata()):
        make_songs(store, layout, songs, seed=seed)
    make_splits(store, layout, config)
    for album in read_segments(store, layout, config.data.columns).albums:
        check_alignment(store, layout, config, album)
    shared: dict[str, bytes] = {}
    for strategy in STRATEGIES:
        train_fusion(store, layout, strategy, config, shared=shared)
    judged = compare(store, layout, config, without_dropout=STRATEGIES).splits[split]
    found = []
    for strategy in STRATEGIES:
        verdict = judged.verdicts[strategy]
        with_it = judged.models[strategy].degradation
        without = judged.without_dropout[strategy].degradation
        found.append(
            Outcome(
                seed=seed,
                strategy=strategy,
                single=verdict.best_unimodal,
                single_macro_f1=verdict.unimodal,
                macro_f1=verdict.fusion,
                low=verdict.difference.low,
                wins=verdict.fusion_wins,
                lost={name: each.lost.value for name, each in with_it.items()},
                bounds=config.evaluation.bounds(),
                lost_without_dropout={name: each.lost.value for name, each in without.items()},
                left=with_it[RARELY_ABSENT].macro_f1,
                left_without_dropout=without[RARELY_ABSENT].macro_f1,
            )
        )
    return found


def against_single(found: Sequence[Outcome]) -> str:
    """A row a seed: macro-F1, and in brackets the lower bound of the difference."""
    strategies = list(dict.fromkeys(each.strategy for each in found))
    rows = []
    for seed, some in _by_seed(found).items():
        cells = [f"{each.macro_f1:.3f} ({each.low:+.3f}{_no(each.wins)})" for each in some]
        rows.append([seed, f"{some[0].single} {some[0].single_macro_f1:.3f}", *cells, _wins(some)])
    return markdown(["seed", "best alone", *strategies, "better, beyond chance"], rows)


def losses(found: Sequence[Outcome]) -> str:
    """A row a seed and strategy: macro-F1 lost, with modality dropout and without; the bound."""
    rows = [
        [
            each.seed,
            each.strategy,
            *(
                f"{lost:+.3f}{_no(lost <= each.bounds[name])} / "
                f"{each.lost_without_dropout[name]:+.3f} ({each.bounds[name]:.3f})"
                for name, lost in each.lost.items()
            ),
        ]
        for each in found
    ]
    names = [f"lost without {name}: dropout / none (bound)" for name in found[0].lost]
    return markdown(["seed", "strategy", *names], rows)


def over_seeds(found: Sequence[Outcome]) -> str:
    """A row a strategy, and one of all: means over seeds, and their intervals."""
    strategies = list(dict.fromkeys(each.strategy for each in found))
    rows = []
    for name in (*strategies, "all four"):
        some = [
            each if name == "all four" else [one for one in each if one.strategy == name]
            for each in _by_seed(found).values()
        ]
        rows.append(
            [
                name,
                f"{sum(all(one.wins for one in each) for each in some)} of {len(some)}",
                interval([fmean(one.advantage for one in each) for each in some]),
                *(
                    interval([fmean(one.lost[m] for one in each) for each in some])
                    for m in found[0].lost
                ),
                interval([fmean(_spared(one) for one in each) for each in some]),
            ]
        )
    head = ["strategy", "seeds won", "advantage over the best alone"]
    lost = [f"lost without {name}" for name in found[0].lost]
    return markdown([*head, *lost, f"spared by dropout without {RARELY_ABSENT}"], rows)


def said_of(found: Sequence[Outcome]) -> str:
    """The three claims in sentences."""
    seeds = _by_seed(found)
    within = [lost <= one.bounds[name] for one in found for name, lost in one.lost.items()]
    spared = [fmean(map(_spared, some)) > 0 for some in seeds.values()]
    kept = [
        fmean(one.left for one in some) >= fmean(one.left_without_dropout for one in some)
        for some in seeds.values()
    ]
    better = sum(all(one.wins for one in some) for some in seeds.values())
    return (
        f"Better than every modality alone, beyond chance: {_wins(found)} fits; all four in "
        f"{better} of {len(seeds)} corpora.\n"
        f"Lost no more than the bound: {sum(within)} of {len(within)}.\n"
        f"Without {RARELY_ABSENT}, the mean of the four lost less with modality dropout than "
        f"without in {sum(spared)} of {len(seeds)} corpora, and had no less left in {sum(kept)}."
    )


def interval(values: Sequence[float]) -> str:
    """The mean over seeds with Student's interval, of two seeds or more."""
    mean = fmean(values)
    if len(values) < 2:
        return f"{mean:+.3f}"
    from scipy.stats import t

    half = float(t.ppf((1 + _LEVEL) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def _by_seed(found: Sequence[Outcome]) -> dict[int, list[Outcome]]:
    seeds: dict[int, list[Outcome]] = {}
    for each in found:
        seeds.setdefault(each.seed, []).append(each)
    return seeds


def _spared(one: Outcome) -> float:
    """Macro-F1 that modality dropout saves where the modality that is rarely absent is removed."""
    return one.lost_without_dropout[RARELY_ABSENT] - one.lost[RARELY_ABSENT]


def _wins(some: Sequence[Outcome]) -> str:
    return f"{sum(each.wins for each in some)} of {len(some)}"


def _no(holds: bool) -> str:
    return "" if holds else " NO"


if __name__ == "__main__":
    main()
