"""Dagster's own pages, looked at as a person does."""

import base64
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from clipfarm_assets_tests.e2e.browser import Page


def by_asset(checks: Iterable[str]) -> list[tuple[str, list[str]]]:
    """``asset:name`` of checks, as assets with their names."""
    out = defaultdict(list)
    for asset, name in (check.split(":") for check in checks):
        out[asset].append(name)
    return sorted(out.items())


def see_graph(page: Page, group: str, names: list[str], picture: str, folder: Path) -> None:
    """The graph of a group, large enough that every asset's name can be read."""
    page.resize(2000, 1125, scale=0.8)
    page.open(f"/locations/clipfarm/asset-groups/{group}")
    page.until_it_shows(group, "Asset Group in", *names)
    page.click_if_there("//*[text()='Hide navigation']")  # it stays hidden from graph to graph
    assert len(page.boxes(names)) >= len(names)
    assert page.picture(picture, folder).startswith(b"\x89PNG")
    page.resize(1600, 900)


def see_inline_image(page: Page, entry: str, picture: str, folder: Path) -> dict:
    """Unfold a picture that an entry of a materialisation's metadata holds, and fold it again."""
    cell = f"//tr[td[.='{entry}']]"
    page.click(f"{cell}//*[contains(text(), 'Show Markdown')]")
    (image,) = page.until(page.inline_images)
    assert image["shown"] > 0
    page.picture(picture, folder)
    page.press_escape()
    page.until(lambda: not page.inline_images())
    return image


def see_plot(page: Page, plot: str, stored: bytes, picture: str, folder: Path) -> None:
    """A plot of a materialisation, shown whole and as stored."""
    image = see_inline_image(page, f"plot/{plot}", picture, folder)
    assert base64.b64decode(image["src"].partition(",")[2]) == stored
    assert image["width"] > 200, "the picture is broken"


def see_checks(
    page: Page, asset: str, names: list[str], folder: Path, *, beside: tuple[str, ...] = ()
) -> None:
    """The page of an asset's checks: these succeeded, and each one's numbers, clicked one by one.

    Args:
        page: The browser's.
        asset: Key of the asset.
        names: Of its checks, those that succeeded.
        folder: Where pictures go.
        beside: Of its checks, those whose result is looked at elsewhere.
    """
    page.open(f"/assets/{asset}?view=checks")
    page.until_it_shows(f"Checks ({len(names) + len(beside)})", *names, *beside)
    page.until(lambda: page.text.count("Succeeded") >= len(names))
    for name in names:
        page.click(f"//*[text()='{name}']")
        # In the list, and now as the heading of what is beside it.
        page.until(lambda name=name: page.text.count(name) > 1)
        page.until_it_shows("Passed", "examined")
        page.picture(f"check-{asset.rpartition('/')[2]}-{name}", folder)
