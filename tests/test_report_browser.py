"""The report as a person uses it: in a real browser, by mouse and by keyboard, at desktop and phone width."""

from __future__ import annotations

import base64
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from covseg import table
from covseg.errors import Reason, Status
from covseg.records import RESEARCH_ONLY
from covseg.report import Gallery, render

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from tests import report_browser
from tests.report_browser import PRESENCE, REFUSED, emulate, focused, image, press, resize

pytestmark = pytest.mark.service
page, chromium, browser = report_browser.page, report_browser.chromium, report_browser.browser


def ids(browser: webdriver.Chrome) -> list[int]:
    """Numbers of the images in the table, as shown from top to bottom; -1 the refused one."""
    titles = browser.execute_script(
        "return [...document.querySelectorAll('#rows tbody tr:not([hidden]) button')].map(button => button.title)"
    )
    return [-1 if title == "f" * 32 else int(title, 16) for title in titles]


def pictures(browser: webdriver.Chrome) -> int:
    return len(browser.find_elements(By.CSS_SELECTOR, "#gallery li:not([hidden])"))


def header(browser: webdriver.Chrome, column: str):
    return browser.find_element(By.CSS_SELECTOR, f'#rows th[data-column="{column}"]')


def test_the_table_opens_with_the_most_infected_first_and_the_refused_last(browser):
    assert ids(browser) == [*range(11, -1, -1), -1]
    assert header(browser, "infected_fraction").get_attribute("aria-sort") == "descending"


def test_a_heading_sorts_by_click_then_back_and_a_missing_value_stays_last(browser):
    button = header(browser, "infected_fraction").find_element(By.TAG_NAME, "button")
    button.click()
    assert ids(browser) == [*range(12), -1]
    assert header(browser, "infected_fraction").get_attribute("aria-sort") == "ascending"
    button.click()
    assert ids(browser) == [*range(11, -1, -1), -1]


def test_a_heading_sorts_by_the_keyboard_and_one_heading_at_a_time_says_so(browser):
    button = header(browser, "extent_0_8").find_element(By.TAG_NAME, "button")
    browser.execute_script("arguments[0].focus()", button)
    press(browser, Keys.ENTER)
    assert ids(browser)[0] == 8
    assert [one.get_attribute("data-column") for one in browser.find_elements(By.CSS_SELECTOR, "th[aria-sort]")] == [
        "extent_0_8"
    ]


def test_the_pictures_follow_the_table(browser):
    def shown() -> list[int]:
        tiles = (
            "return [...document.querySelectorAll('#gallery li:not([hidden])')].map((one) => Number(one.dataset.place))"
        )
        return [11 - place for place in browser.execute_script(tiles)]  # the table opens with image 11

    assert shown() == ids(browser)[:-1]
    header(browser, "extent_0_8").find_element(By.TAG_NAME, "button").click()
    assert shown() == ids(browser)[:-1] != list(range(11, -1, -1))
    Select(browser.find_element(By.ID, "filter-flag")).select_by_value("rotated")
    assert shown() == ids(browser) == [7, 3]
    assert pictures(browser) == 2


def test_grades_sort_by_severity_not_by_alphabet(browser):
    header(browser, "grade").find_element(By.TAG_NAME, "button").click()
    shown = browser.execute_script(
        "return [...document.querySelectorAll('#rows tbody td:nth-child(3)')].map(cell => cell.textContent.trim())"
    )
    assert list(dict.fromkeys(shown)) == ["critical", "severe", "moderate", "mild", "none", "refused"]


def test_filters_narrow_rows_and_pictures_and_say_how_many_are_left(browser):
    Select(browser.find_element(By.ID, "filter-flag")).select_by_value("rotated")
    assert ids(browser) == [7, 3]
    assert pictures(browser) == 2
    assert browser.find_element(By.ID, "images-shown").text == "2 of 13 rows and 2 of 12 pictures shown"
    browser.find_element(By.ID, "filter-reset").click()
    assert len(ids(browser)) == 13


def test_images_are_found_by_grade_by_status_and_by_text(browser):
    Select(browser.find_element(By.ID, "filter-grade")).select_by_visible_text("none")
    assert ids(browser) == [0]
    browser.find_element(By.ID, "filter-reset").click()
    Select(browser.find_element(By.ID, "filter-status")).select_by_value("refused")
    assert ids(browser) == [-1]
    browser.find_element(By.ID, "filter-reset").click()
    browser.find_element(By.ID, "filter-text").send_keys("Empty")
    assert ids(browser) == [-1]


def test_rows_are_walked_by_arrow_keys_and_opened_and_closed_by_the_keyboard(browser):
    first = browser.find_element(By.CSS_SELECTOR, "#rows tbody button")
    browser.execute_script("arguments[0].focus()", first)
    press(browser, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert int(focused(browser), 16) == 9
    press(browser, Keys.ENTER)
    dialog = browser.find_element(By.ID, "image")
    assert dialog.is_displayed()
    assert f"{9:032x}" in browser.find_element(By.ID, "image-title").text
    assert "75.0" in dialog.text
    assert "Missing spacing".lower() in dialog.text.lower()
    press(browser, Keys.ARROW_RIGHT)
    assert f"{8:032x}" in browser.find_element(By.ID, "image-title").text
    press(browser, Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert int(focused(browser), 16) == 9


def test_each_list_is_one_stop_of_the_tab_key(browser):
    for box in ("#rows tbody", "#gallery"):
        assert len(browser.find_elements(By.CSS_SELECTOR, f"{box} button:not([tabindex='-1'])")) == 1


def test_every_control_is_reached_by_the_tab_key_and_shows_its_focus(browser):
    browser.execute_script("document.body.tabIndex = -1; document.body.focus()")
    reached = []
    for _ in range(100):
        press(browser, Keys.TAB)
        name, outline = browser.execute_script(
            "const one = document.activeElement;"
            "return [one.id || one.textContent.trim().slice(0, 20), getComputedStyle(one).outlineStyle]"
        )
        reached.append(name)
        assert outline == "solid", name
        if name == "What the columns mea":
            break
    assert {
        "filter-text",
        "filter-grade",
        "filter-flag",
        "filter-status",
        "filter-reset",
        "Contours",
        "Probability",
    } <= set(reached)
    assert reached[-1] == "What the columns mea"


def test_a_thumbnail_opens_its_own_row_with_its_picture(browser):
    tile = browser.find_element(By.CSS_SELECTOR, "#gallery button")
    browser.execute_script("arguments[0].focus()", tile)
    press(browser, Keys.ARROW_RIGHT, Keys.ENTER)
    assert f"{10:032x}" in browser.find_element(By.ID, "image-title").text
    shown = browser.find_element(By.CSS_SELECTOR, "#viewer .picture").get_dom_attribute("href")
    tile = browser.find_elements(By.CSS_SELECTOR, "#gallery li")[1].find_element(By.CLASS_NAME, "picture")
    assert shown == tile.get_dom_attribute("href")


def open_row(browser: webdriver.Chrome, number: int) -> str:
    """Open a row, counted from the top, and return what the large view says, in one line."""
    line = browser.find_elements(By.CSS_SELECTOR, "#rows tbody tr")[number]
    browser.execute_script("arguments[0].click()", line)
    return " ".join(browser.find_element(By.ID, "image").text.split())


def test_a_refused_file_opens_with_its_reason_in_plain_words_and_without_picture_controls(browser):
    text = open_row(browser, -1)
    assert "Refused: empty" in text
    assert "The file has no content." in text
    assert "What was found 0 bytes Refused at input filter" in text
    assert not any(word in text for word in ("RadiographRefused", "Window", "Probability", "resolution", "picture"))
    browser.find_element(By.ID, "image-previous").click()
    text = browser.find_element(By.ID, "image").text
    assert all(word in text for word in ("Window", "Probability", "resolution"))


def test_the_images_of_highest_doubt_come_first_with_picture_and_reason_and_open(browser):
    first = browser.find_elements(By.CSS_SELECTOR, "#look-gallery li")
    assert [11 - int(one.get_attribute("data-place")) for one in first] == [4, 9, 0]  # the table begins with image 11
    assert "pixels reach the pixel threshold, yet nothing is marked" in first[0].text
    first[0].find_element(By.TAG_NAME, "button").click()
    dialog = browser.find_element(By.CSS_SELECTOR, "dialog[open]")
    assert f"{4:032x}" in dialog.text
    assert "Doubt, 0 to 1\n0.9\nLargest part of the doubt\ncolour unmarked" in dialog.text
    assert dialog.find_element(By.CSS_SELECTOR, "#viewer .picture").is_displayed()


def test_the_table_sorts_by_doubt_and_a_refused_file_which_has_none_stays_last(browser):
    header(browser, "doubt").find_element(By.TAG_NAME, "button").click()
    assert ids(browser)[:3] == [4, 0, 9]
    assert ids(browser)[-1] == -1


def test_the_tile_of_flagged_images_leads_to_those_that_a_flag_asks_to_look_at(browser):
    Select(browser.find_element(By.ID, "filter-grade")).select_by_visible_text("mild")
    browser.find_element(By.LINK_TEXT, "Flagged").click()
    assert ids(browser) == [7, 3]  # all others have a note on their kind of file alone
    assert pictures(browser) == 2
    chosen = Select(browser.find_element(By.ID, "filter-flag")).first_selected_option
    assert chosen.text == "any flag that asks for a look"
    assert browser.current_url.endswith("#images")
    browser.find_element(By.ID, "filter-reset").click()
    assert len(ids(browser)) == 13


def test_an_image_that_the_input_filter_refused_is_seen_with_its_judgement_and_no_contours(browser, tmp_path):
    judged = replace(
        REFUSED, status=Status.OUT_OF_SCOPE, reason=Reason.NOT_FRONTAL_CHEST, detail="taken for: x; score 2, limit 1"
    )
    gallery = Gallery()
    gallery.offer(judged, np.full((64, 64), 0.5, np.float32))
    path = tmp_path / "report.html"
    path.write_bytes(render(table.to_arrow([image(3), judged]), gallery.pictures(), PRESENCE))
    other = browser.current_url
    browser.get(path.as_uri())
    tile = browser.find_element(By.CSS_SELECTOR, "#refused-gallery button")
    assert "taken for: x; score 2, limit 1" in tile.text
    tile.click()
    dialog = browser.find_element(By.CSS_SELECTOR, "dialog[open]")
    assert "Refused: not frontal chest" in dialog.text
    assert "taken for: x; score 2, limit 1" in dialog.text
    assert dialog.find_element(By.CSS_SELECTOR, "#viewer .picture").is_displayed()
    assert not dialog.find_element(By.CLASS_NAME, "side").is_displayed()  # it may be a lateral view
    assert [dialog.find_element(By.ID, f"layer-{name}").is_displayed() for name in ("picture", "lung", "heat")] == [
        True, False, False,
    ]  # fmt: skip
    assert browser.get_log("browser") == []
    browser.get_log("performance")
    browser.get(other)


def test_an_image_under_the_presence_threshold_says_why_nothing_is_marked(browser):
    text = open_row(browser, 11)
    assert "Infection probability < 0.01 is under the model’s 0.281: nothing is marked on this image." in text
    assert "Infection probability, as COVID-QU-Ex labels it, 0 to 1 < 0.01" in text
    browser.find_element(By.ID, "image-previous").click()
    assert "nothing is marked" not in browser.find_element(By.ID, "image").text.lower()


@pytest.mark.parametrize(
    ("presence", "probability", "fraction", "said"),
    [
        (0.28112, 0.281, 0.0, "Infection probability 0.281000 is under the model’s 0.281120: nothing is marked"),
        (0.28112, 0.02, None, "Infection probability 0.02 is under the model’s 0.281: nothing is marked"),
        (0.28112, 0.5, 0.0, "its infection probability, 0.50, reaches the model’s 0.281, but no part of the lung"),
        (0.0, 0.5, 0.0, "Nothing is marked on this image: no part of the lung reached the pixel threshold"),
        (None, 0.02, 0.0, "its infection probability, 0.02, is under the model’s image-level threshold, or no part"),
    ],
)
def test_the_reason_why_nothing_is_marked_fits_the_image(browser, tmp_path, presence, probability, fraction, said):
    grade = None if fraction is None else "none"
    row = replace(image(1), infected_fraction=fraction, grade=grade, infection_probability=probability)
    path = tmp_path / "report.html"
    path.write_bytes(render(table.to_arrow([row]), [], presence))
    home = browser.current_url
    browser.get(path.as_uri())
    text = open_row(browser, 0)
    browser.get(home)
    browser.get_log("performance")
    assert said in text
    assert "Contours" not in text


def test_a_filter_that_matches_nothing_says_so(browser):
    message = browser.find_element(By.ID, "images-none")
    assert not message.is_displayed()
    browser.find_element(By.ID, "filter-text").send_keys("no such image")
    assert (message.is_displayed(), message.text) == (True, "No image matches.")
    shown = browser.find_element(By.ID, "images-shown")
    assert shown.text == "No image matches: 0 of 13 rows and 0 of 12 pictures shown"
    assert shown.get_attribute("aria-live") == "polite"
    browser.find_element(By.ID, "filter-reset").click()
    assert not message.is_displayed()


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_whole_histogram_is_seen_and_a_wide_table_says_so(browser, width):
    resize(browser, width)
    chart = browser.find_element(By.CSS_SELECTOR, ".chart")
    beyond = browser.execute_script(
        "const room = arguments[0].closest('section').getBoundingClientRect();"
        "return [...arguments[0].querySelectorAll('rect, text')].map((one) => one.getBoundingClientRect())"
        ".filter((box) => box.left < room.left || box.right > room.right).length",
        chart,
    )
    assert beyond == 0
    table_box = browser.find_element(By.CSS_SELECTOR, ".images")
    hidden = browser.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", table_box)
    assert browser.find_element(By.CSS_SELECTOR, ".sideways").is_displayed() == hidden


def test_probability_and_contours_are_switched_everywhere_at_once(browser):
    browser.execute_script("document.getElementById('gallery').scrollIntoView()")
    heat = browser.find_element(By.CSS_SELECTOR, "#gallery .heat")
    contour = browser.find_element(By.CSS_SELECTOR, "#gallery .lung")
    assert (heat.is_displayed(), contour.is_displayed()) == (False, True)
    for name in ("heat", "contours"):
        browser.find_element(By.CSS_SELECTOR, f'[data-toggle="{name}"]').click()
    assert (heat.is_displayed(), contour.is_displayed()) == (True, False)
    pressed = {
        button.get_attribute("data-toggle") + button.get_attribute("aria-pressed")
        for button in browser.find_elements(By.CSS_SELECTOR, "[data-toggle]")
    }
    assert pressed == {"heattrue", "contoursfalse"}


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_page_never_scrolls_sideways(browser, width):
    resize(browser, width)
    assert (
        browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        <= 0
    )


def test_the_large_view_fits_a_phone(browser):
    resize(browser, 360)
    browser.execute_script("document.querySelector('#gallery button').click()")
    assert (
        browser.execute_script("const one = document.querySelector('dialog'); return one.scrollWidth - one.clientWidth")
        <= 0
    )


def test_images_controls_and_headings_are_named_and_ids_are_unique(browser):
    faults = browser.execute_script("""
        const all = (selector) => [...document.querySelectorAll(selector)];
        const ids = all("[id]").map((one) => one.id);
        const levels = all("main :is(h2, h3), h1").map((one) => Number(one.tagName[1]));
        return [
            ...all("img:not([alt])"), ...all("svg:not([aria-hidden]):not([aria-labelledby]):not([aria-label])"),
            ...all("button").filter((one) => !one.textContent.trim()),
            ...all("input, select").filter((one) => !one.labels.length),
            ...ids.filter((id, place) => ids.indexOf(id) !== place),
            ...all("[aria-labelledby]").filter((one) => !document.getElementById(one.getAttribute("aria-labelledby"))),
            ...levels.filter((level, place) => place && level > levels[place - 1] + 1),
            ...(all("h1").length === 1 ? [] : ["h1"]),
        ].map((one) => one.outerHTML ?? String(one));
    """)
    assert faults == []


def test_in_print_everything_fits_the_width_of_a4_and_controls_are_gone(browser):
    resize(browser, 703)  # 186 mm at 96 pixels an inch: A4 within its margins
    emulate(browser, "print")
    try:
        wide = browser.execute_script(
            "return [...document.querySelectorAll('main *')]"
            ".filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML)"
        )
        assert wide == []
        assert not browser.find_element(By.ID, "filter-text").is_displayed()
        banner = browser.find_element(By.CSS_SELECTOR, ".research")
        assert banner.is_displayed()
        assert banner.value_of_css_property("position") == "fixed"  # repeated on every page
        room = float(browser.find_element(By.CSS_SELECTOR, ".page").value_of_css_property("padding-top")[:-2])
        assert banner.rect["height"] < room
        meanings = browser.find_element(By.CSS_SELECTOR, "details:has(.meanings)")
        assert meanings.value_of_css_property("break-inside") == "avoid"
    finally:
        emulate(browser)


def last_page(browser: webdriver.Chrome, path: Path) -> list[str]:
    """Print the open page; return the lines of text on the last sheet, but for the banner that every sheet has."""
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    path.write_bytes(base64.b64decode(printed["data"]))
    text = subprocess.run(["pdftotext", "-layout", str(path), "-"], capture_output=True, text=True, check=True).stdout
    *_, sheet = text.rstrip("\f\n").split("\f")
    return [line for line in sheet.splitlines() if line.strip() and line.strip() != RESEARCH_ONLY]


def test_the_last_sheet_holds_the_whole_foot(browser, page, tmp_path):
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext on this machine (Debian: apt-get install poppler-utils)")
    resize(browser, 703)
    for height in range(0, 270, 15):  # millimetres: wherever the foot comes to lie on its sheet
        browser.execute_script("document.querySelector('header').style.paddingBottom = arguments[0] + 'mm'", height)
        lines = last_page(browser, tmp_path / "report.pdf")
        assert len(lines) > 4 and any("holds no source file name" in line for line in lines), (height, lines)


def test_without_script_everything_but_the_controls_is_there(browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.refresh()
        assert len(browser.find_elements(By.CSS_SELECTOR, "#rows tbody tr")) == 13
        assert not browser.find_element(By.ID, "filter-text").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
