"""A headless Chromium, and what a person would see in it."""

import os
import re
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

SCREENSHOTS_VARIABLE = "CLIPFARM_SCREENSHOTS"
_PATIENCE = 90


def require_chromium() -> tuple[str, str]:
    """Paths of the browser and its driver. Skips where they are not installed, but fails on CI."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser and driver:
        return browser, driver
    reason = "no headless browser: chromium and chromedriver must be on PATH"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Page:
    """One tab."""

    def __init__(self, driver: webdriver.Chrome, base: str) -> None:
        self.driver, self.base = driver, base

    def load(self, path: str) -> None:
        """Load the app, at one of its pages."""
        self.driver.get(self.base + path)

    def open(self, path: str) -> None:
        """Go to a page as a link of the app does: what is loaded of it already, stays."""
        if not self.driver.current_url.startswith(self.base):
            self.load(path)
            return
        self.driver.execute_script(
            "history.pushState(null, '', arguments[0]);"
            "dispatchEvent(new PopStateEvent('popstate', {state: null}))",
            path,
        )

    def leave(self) -> None:
        """Go to an empty page: the app asks for news all the time, watched or not."""
        self.driver.get("about:blank")

    def resize(self, width: int, height: int, *, scale: float = 1) -> None:
        """Set the viewport in CSS pixels; a picture of it has `scale` times as many."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False},
        )

    @property
    def text(self) -> str:
        """What can be read, cells of a table row with a space between them."""
        read = self.driver.execute_script("return document.body.innerText")
        return re.sub(r"\s*\t\s*", " ", read)

    def until(self, condition):
        """Wait until the condition gives something, and return that."""
        waiting = WebDriverWait(self.driver, _PATIENCE, poll_frequency=0.2)
        return waiting.until(lambda _driver: condition())

    def until_it_shows(self, *words: str) -> None:
        """Wait until all words can be read, and say which could not."""
        missing = list(words)

        def all_there() -> bool:
            text = self.text
            missing[:] = [word for word in words if word not in text]
            return not missing

        try:
            self.until(all_there)
        except Exception:
            pytest.fail(f"{self.driver.current_url} does not show {missing}:\n{self.text[:4000]}")

    def click(self, xpath: str) -> None:
        self.until(lambda: self.driver.find_elements(By.XPATH, xpath))[0].click()

    def click_if_there(self, xpath: str) -> None:
        for found in self.driver.find_elements(By.XPATH, xpath)[:1]:
            found.click()

    def press_escape(self) -> None:
        self.driver.switch_to.active_element.send_keys(Keys.ESCAPE)

    def boxes(self, names) -> list[tuple[int, int]]:
        """Where elements with these exact texts stand, once they stand still."""

        def where():
            return [
                (box["x"], box["y"])
                for name in names
                for element in self.driver.find_elements(By.XPATH, f"//*[text()='{name}']")
                if (box := element.rect)["width"]
            ]

        def at_rest():
            first = where()
            time.sleep(0.5)
            return first if first and first == where() else None

        return self.until(at_rest)

    def inline_images(self) -> list[dict]:
        """Pictures that the page holds itself: address, and width as decoded (0 if broken)."""
        return self.driver.execute_script(
            "return [...document.images].filter(i => i.src.startsWith('data:image/png;base64,'))"
            ".map(i => ({src: i.src, width: i.naturalWidth, shown: i.clientWidth}))"
        )

    def picture(self, name: str, folder: Path) -> bytes:
        """Save what is seen as ``<name>.png``: in $CLIPFARM_SCREENSHOTS, else in `folder`."""
        folder = Path(os.environ.get(SCREENSHOTS_VARIABLE) or folder)
        folder.mkdir(parents=True, exist_ok=True)
        png = self.driver.get_screenshot_as_png()
        (folder / f"{name}.png").write_bytes(png)
        return png


@contextmanager
def browsing(base: str):
    """A page of 1600 x 900 that can reach nothing but the loopback address."""
    browser, driver_path = require_chromium()
    options = Options()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",  # Chromium refuses its sandbox to root, which containers run as
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        driver.set_page_load_timeout(120)
        page = Page(driver, base)
        page.resize(1600, 900)
        # What a click on "Skip" leaves: the invitation to the community is not shown again.
        skipped = "localStorage.setItem('communityNux', '\"1\"')"
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": skipped})
        yield page
    finally:
        driver.quit()
