"""A report of made images, open in a real browser; what the tests of the report do with it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from covseg import table
from covseg.errors import Reason, Status
from covseg.records import Masks, Row
from covseg.report import Gallery, render
from covseg.stages import severity

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver import ActionChains

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
QUIET = (
    "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "disable-dev-shm-usage",
)  # fmt: skip
PRESENCE = 0.28112
DOUBTS = {0: 0.7, 9: 0.2, 4: 0.9}  # of these images; the others have none
OVERLAYS = {f"{number:032x}": f"overlays/{number:032x}.jpg" for number in (11, 10)}
MASKS = {11: f"masks/{11:032x}.png", 10: "packed/1.parquet#x", 9: "javascript:alert(1)"}
REFUSED = Row(
    "f" * 32, "x", "etag", None, 0, Status.QUARANTINED, Reason.EMPTY,
    stage="input_filter", exception_class="RadiographRefused", detail="0 bytes",
)  # fmt: skip


def image(number: int) -> Row:
    """Image number 0 to 11: more infected with the number; two of them flagged; 0 under the image-level threshold."""
    fraction = number / 12
    flags = ("missing_spacing", "rotated") if number in (3, 7) else ("missing_spacing",)
    flags += ("laterality_unverified",) if number == 7 else ()
    return Row(
        f"{number:032x}", f"{number}.png", "etag", "sha", 10, Status.SCORED, infected_fraction=fraction,
        infected_fraction_right_upper=fraction, extent_0_8=number % 9, infection_probability=number / 12 or 0.00003,
        grade=severity.GRADES[severity.step(fraction)], grade_table=severity.GRADE_TABLE, qc_flags=flags,
        mask_uri=MASKS.get(number), doubt=DOUBTS.get(number, 0.0),
        doubt_reason="colour_unmarked" if number in DOUBTS else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows, gallery = [image(number) for number in range(12)], Gallery()
    generator = np.random.default_rng(1)
    for row in rows:
        lung = np.zeros((64, 64), np.uint8)
        lung[8:56, 8:28] = lung[8:56, 36:56] = 1
        infection = lung.copy()
        infection[: 56 - 4 * int(row.input_id, 16)] = 0
        masks = Masks(lung, infection, lung, False, 0.0, 1, 1.0)
        pixels = generator.random((64, 64), np.float32)
        gallery.offer(row, pixels, masks, infection.astype(np.float32))
    rows += [REFUSED]
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(render(table.to_arrow(rows), gallery.pictures(), PRESENCE, overlays=OVERLAYS))
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium with chromedriver on this machine (Debian: apt-get install chromium chromium-driver)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*QUIET, f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        yield browser
        browser.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome, page: Path) -> Iterator[webdriver.Chrome]:
    """The report, freshly opened at 1280 pixels; afterwards: nothing was refused, nothing left the page."""
    resize(chromium, 1280)
    emulate(chromium)
    chromium.get("about:blank")
    chromium.get_log("performance")  # what the browser's own first tab asked for
    chromium.get(page.as_uri())
    yield chromium
    assert chromium.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith(("data:image/", "blob:"))} <= {page.as_uri()}


def resize(browser: webdriver.Chrome, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def emulate(browser: webdriver.Chrome, media: str = "") -> None:
    """Show a medium without motion, so that nothing glides away from under a click."""
    still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": still})


def press(browser: webdriver.Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def focused(browser: webdriver.Chrome) -> str:
    return browser.execute_script("return document.activeElement.title || document.activeElement.textContent.trim()")
