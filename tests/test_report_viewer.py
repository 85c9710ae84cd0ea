"""The large view of an image, the charts that filter and the export, by mouse, keyboard and touch in a real browser."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covseg import table
from covseg.records import RESEARCH_ONLY

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from tests import report_browser
from tests.report_browser import REFUSED, focused, image, press, resize

pytestmark = pytest.mark.service
page, chromium, browser = report_browser.page, report_browser.chromium, report_browser.browser


def open_image(browser: webdriver.Chrome, number: int = 11) -> None:
    row = browser.find_element(By.CSS_SELECTOR, f'#rows button[title="{number:032x}"]')
    browser.execute_script("arguments[0].focus(); arguments[0].click()", row)


def opened(browser: webdriver.Chrome) -> int:
    return int(browser.find_element(By.ID, "image-title").text.removeprefix("Image "), 16)


def click(browser: webdriver.Chrome, name: str) -> None:
    browser.find_element(By.ID, name).click()


def slide(browser: webdriver.Chrome, name: str, value: int) -> None:
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
    browser.execute_script(script, browser.find_element(By.ID, f"viewer-{name}"), value)


def box(browser: webdriver.Chrome) -> list[float]:
    """What part of the picture of 256 pixels is seen: left, top, width, height."""
    shown = browser.find_element(By.CSS_SELECTOR, "#viewer svg").get_dom_attribute("viewBox")
    return [float(number) for number in shown.split()]


def zoom(browser: webdriver.Chrome) -> float:
    return 256 / box(browser)[2]


def grey(browser: webdriver.Chrome) -> np.ndarray:
    """Grey values of the middle of the picture as painted, without its contours."""
    for name in ("lung", "infection"):
        button = browser.find_element(By.ID, f"layer-{name}")
        if button.get_attribute("aria-pressed") == "true":
            button.click()
    painted = browser.find_element(By.CSS_SELECTOR, "#viewer svg").screenshot_as_png
    pixels = np.asarray(Image.open(io.BytesIO(painted)).convert("L"), float)
    height, width = pixels.shape
    return pixels[height // 4 : -height // 4, width // 4 : -width // 4]


def visible(browser: webdriver.Chrome, layer: str) -> tuple[bool, bool]:
    """Whether a layer is seen in the large view and in the gallery."""
    script = (
        "return ['#viewer ', '#gallery ']"
        ".map((one) => getComputedStyle(document.querySelector(one + arguments[0])).visibility === 'visible')"
    )
    return tuple(browser.execute_script(script, f".{layer}"))


def ids(browser: webdriver.Chrome) -> list[str]:
    return [
        row.get_attribute("title")
        for row in browser.find_elements(By.CSS_SELECTOR, "#rows tbody tr:not([hidden]) button")
    ]


def numbers(browser: webdriver.Chrome) -> list[int]:
    return [int(name, 16) for name in ids(browser)]


def test_buttons_and_keys_zoom_within_bounds_and_say_so(browser):
    open_image(browser)
    assert box(browser) == [0, 0, 256, 256]
    click(browser, "viewer-in")
    assert zoom(browser) == pytest.approx(1.5)
    assert box(browser)[:2] == pytest.approx([256 / 6, 256 / 6])  # about its middle
    browser.execute_script("document.getElementById('viewer').focus()")
    press(browser, *["+"] * 8)
    assert zoom(browser) == pytest.approx(8)
    said = browser.find_element(By.ID, "viewer-said")
    assert "Zoom 800 %" in said.text
    assert said.get_attribute("role") == "status"
    press(browser, "-")
    assert zoom(browser) == pytest.approx(8 / 1.5)
    press(browser, "0")
    assert box(browser) == [0, 0, 256, 256]
    press(browser, "-")
    assert zoom(browser) == 1


def test_the_wheel_zooms_at_the_pointer_and_a_whole_picture_lets_it_scroll(browser):
    open_image(browser)
    picture = browser.find_element(By.CSS_SELECTOR, "#viewer svg")
    where = picture.rect
    x, y = int(where["x"]), int(where["y"])
    ActionChains(browser).scroll_from_origin(origin(picture, -where["width"] // 4), 0, -200).perform()
    left, _, width, _ = box(browser)
    assert zoom(browser) > 1.2
    assert left + width / 4 == pytest.approx(64, abs=1.5)  # what lay under the pointer still does
    assert int(picture.rect["y"]) == y and int(picture.rect["x"]) == x  # nothing scrolled
    ActionChains(browser).scroll_from_origin(origin(picture), 0, 2000).perform()
    assert zoom(browser) == 1


def origin(element, x: float = 0, y: float = 0):
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    return ScrollOrigin.from_element(element, int(x), int(y))


def test_a_drag_and_arrow_keys_move_a_zoomed_picture_and_a_whole_one_gives_way_to_the_next(browser):
    open_image(browser)
    browser.execute_script("document.getElementById('viewer').focus()")
    press(browser, Keys.ARROW_RIGHT)
    assert opened(browser) == 10
    press(browser, "+", "+")
    before = box(browser)
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert opened(browser) == 10
    assert box(browser)[0] > before[0] and box(browser)[1] > before[1]
    picture = browser.find_element(By.ID, "viewer")
    ActionChains(browser).move_to_element(picture).click_and_hold().move_by_offset(600, 30).release().perform()
    assert box(browser)[0] == 0  # never beyond its edge
    assert browser.find_element(By.ID, "image").is_displayed()  # let go outside: not closed


def test_two_fingers_zoom_and_one_moves_on_a_phone(browser):
    resize(browser, 390)
    open_image(browser)
    where = browser.execute_script(
        "const one = document.querySelector('#viewer').getBoundingClientRect();"
        "return [one.x + one.width / 2, one.y + one.height / 2]"
    )

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": where[0] + x, "y": where[1] + y, "id": number} for number, (x, y) in enumerate(points)]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touch("touchStart", (-30, 0))
    touch("touchStart", (-30, 0), (30, 0))
    for spread in (40, 60, 80, 90):
        touch("touchMove", (-spread, 0), (spread, 0))
    touch("touchEnd")
    assert zoom(browser) == pytest.approx(3, abs=0.2)
    left = box(browser)[0]
    touch("touchStart", (0, 0))
    touch("touchMove", (-30, 0))
    touch("touchMove", (-60, 0))
    touch("touchEnd")
    assert box(browser)[0] > left + 5
    fits = "const one = document.querySelector('dialog'); return one.scrollWidth - one.clientWidth"
    assert browser.execute_script(fits) <= 0
    small = (
        "return [...document.querySelectorAll('dialog button, dialog a, dialog input')]"
        ".filter((one) => one.offsetParent && one.getBoundingClientRect().height < 24).length"
    )
    assert browser.execute_script(small) == 0  # the least that WCAG 2.2 asks of a target


def test_window_level_and_inversion_change_the_greys_that_are_painted(browser):
    open_image(browser)
    plain = grey(browser)
    click(browser, "viewer-invert")
    assert np.abs(plain + grey(browser) - 255).mean() < 2
    assert "inverted" in browser.find_element(By.ID, "viewer-said").text
    click(browser, "viewer-invert")
    slide(browser, "window", 50)
    wanted = np.clip((plain - 127.5) * 2 + 127.5, 0, 255)
    assert np.abs(grey(browser) - wanted).mean() < 3
    slide(browser, "level", 30)
    assert grey(browser).mean() > wanted.mean() + 20  # a lower level is brighter
    click(browser, "image-next")
    assert "window 50 %, level 30 %" in browser.find_element(By.ID, "viewer-said").text  # kept for the next image
    click(browser, "viewer-reset")
    click(browser, "image-previous")
    assert np.abs(grey(browser) - plain).mean() < 1


def test_shift_and_drag_changes_window_and_level_and_does_not_move(browser):
    open_image(browser)
    picture = browser.find_element(By.ID, "viewer")
    drag = ActionChains(browser).key_down(Keys.SHIFT).move_to_element(picture).click_and_hold()
    drag.move_by_offset(60, 30).release().key_up(Keys.SHIFT).perform()
    assert "window 120 %, level 60 %" in browser.find_element(By.ID, "viewer-said").text
    assert box(browser) == [0, 0, 256, 256]


@pytest.mark.parametrize("layer", ["picture", "lung", "infection", "heat"])
def test_each_layer_is_switched_for_itself_and_in_the_large_view_alone(browser, layer):
    layers = ("picture", "lung", "infection", "heat")
    open_image(browser)
    before = {name: visible(browser, name) for name in layers}
    assert before == {name: (name != "heat",) * 2 for name in layers}
    button = browser.find_element(By.ID, f"layer-{layer}")
    button.click()
    changed = {name: visible(browser, name) for name in layers}
    assert changed == before | {layer: (layer == "heat", layer != "heat")}
    assert button.get_attribute("aria-pressed") == str(layer == "heat").lower()


def test_the_marked_part_is_filled_as_strongly_as_asked(browser):
    open_image(browser)
    opacity = "return getComputedStyle(document.querySelector('#viewer .infection')).fillOpacity"
    assert float(browser.execute_script(opacity)) == 0
    fill = browser.find_element(By.ID, "viewer-fill")
    browser.execute_script("arguments[0].focus()", fill)
    press(browser, Keys.END)
    assert float(browser.execute_script(opacity)) == 1
    press(browser, Keys.ARROW_LEFT)  # moves the slider, not to another image
    assert (float(browser.execute_script(opacity)), opened(browser)) == (0.99, 11)


def test_right_and_left_are_shown_and_whether_the_file_says_so(browser):
    open_image(browser)
    right, left = browser.find_elements(By.CSS_SELECTOR, "#viewer .side")
    assert (right.text, left.text) == ("R", "L")
    assert right.rect["x"] < left.rect["x"]
    assert browser.find_element(By.ID, "viewer-sides").text == "R and L: the patient’s right and left."
    table_of_sides = browser.find_element(By.CSS_SELECTOR, "#image-row .zones").text
    assert table_of_sides.startswith("Marked Right Left\nwhole lung")
    browser.find_element(By.ID, "image-close").click()
    open_image(browser, 7)
    assert "the file does not say the side" in browser.find_element(By.ID, "viewer-sides").text


def test_an_image_links_to_its_files_and_to_nothing_else(browser):
    def links(number: int) -> list[str]:
        open_image(browser, number)
        found = browser.find_elements(By.CSS_SELECTOR, "#image-row a")
        targets = [link.get_dom_attribute("href") for link in found]
        click(browser, "image-close")
        return targets

    assert links(11) == [f"overlays/{11:032x}.jpg", f"masks/{11:032x}.png"]
    assert links(10) == [f"overlays/{10:032x}.jpg"]  # its mask is packed with others
    assert links(9) == []


def test_next_follows_sort_and_filter_and_tells_the_place(browser):
    browser.find_element(By.CSS_SELECTOR, '#rows th[data-column="doubt"] button').click()
    Select(browser.find_element(By.ID, "filter-grade")).select_by_visible_text("moderate")
    order = numbers(browser)
    assert set(order) == {3, 4, 5} and order[0] == 4
    open_image(browser, order[0])
    place = browser.find_element(By.ID, "image-place")
    assert (opened(browser), place.text) == (4, "1 of 3")
    assert not browser.find_element(By.ID, "image-previous").is_enabled()
    click(browser, "image-next")
    click(browser, "image-next")
    assert (opened(browser), place.text) == (order[2], "3 of 3")
    assert not browser.find_element(By.ID, "image-next").is_enabled()
    assert focused(browser) == "Close"  # not lost with the button that ended
    press(browser, Keys.ESCAPE)
    assert int(focused(browser), 16) in order


def test_next_from_the_images_to_look_at_first_leads_through_these(browser):
    browser.find_element(By.CSS_SELECTOR, "#look-gallery button").click()
    assert (opened(browser), browser.find_element(By.ID, "image-place").text) == (4, "1 of 3")
    press(browser, Keys.ARROW_RIGHT)
    assert opened(browser) == 9
    press(browser, Keys.ESCAPE)
    assert "doubt 0.90" in focused(browser)


def test_the_keyboard_stays_in_the_large_view(browser):
    open_image(browser)
    reached = []
    for _ in range(20):
        press(browser, Keys.TAB)
        where = (
            "const one = document.activeElement; return "
            "[one.id, Boolean(one.closest('dialog')) || one === document.body, getComputedStyle(one).outlineStyle]"
        )
        name, inside, outline = browser.execute_script(where)
        assert inside, name
        reached.append(name)
        assert outline == "solid" or not name, name
    assert {
        "viewer", "viewer-in", "viewer-invert", "layer-lung", "viewer-window", "viewer-fill", "image-next",
    } <= set(reached)  # fmt: skip


@pytest.mark.parametrize(
    ("selector", "wanted", "name"),
    [
        ('.chart a[data-value="0"]', [0], "fraction"),
        ('.chart a[data-value="19"]', [11], "fraction"),
        ('#severity a[data-value="mild"]', [2, 1], "grade"),
        ('#flags a[data-value="rotated"]', [7, 3], "flag"),
        ('#summary a[data-value="quarantined"]', [int("f" * 32, 16)], "status"),
        ('#refusals a[data-value="empty"]', [int("f" * 32, 16)], "reason"),
    ],
)
def test_a_bar_shows_the_rows_that_it_counts(browser, selector, wanted, name):
    browser.find_element(By.ID, "filter-text").send_keys("no such image")
    link = browser.find_element(By.CSS_SELECTOR, selector)
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center' }); arguments[0].focus()", link)
    press(browser, Keys.ENTER)
    assert numbers(browser) == wanted
    assert browser.find_element(By.ID, f"filter-{name}").get_property("value") == link.get_attribute("data-value")
    assert browser.current_url.endswith("#images")


def test_a_bar_of_the_histogram_is_clicked_anywhere_over_it_and_has_a_name(browser):
    link = browser.find_element(By.CSS_SELECTOR, '.chart a[data-value="0"]')
    assert link.get_attribute("aria-label") == "0 %: 1 images"
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", link)
    room = link.find_element(By.CLASS_NAME, "room")
    ActionChains(browser).move_to_element_with_offset(room, 0, -int(room.rect["height"] // 2) + 4).click().perform()
    assert numbers(browser) == [0]


def test_the_rows_shown_are_saved_in_their_order_as_the_table_has_them(browser, tmp_path: Path):
    browser.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.find_element(By.CSS_SELECTOR, '#rows th[data-column="doubt"] button').click()
    Select(browser.find_element(By.ID, "filter-flag")).select_by_value("*")
    shown = ids(browser)
    click(browser, "rows-save")
    for _ in range(100):
        if (path := tmp_path / "severity-filtered.csv").exists():
            break
        time.sleep(0.1)
    saved = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert [row["input_id"] for row in saved] == shown
    assert list(saved[0])[-1] == "intended_use"
    assert {row["intended_use"] for row in saved} == {RESEARCH_ONLY}
    made = table.to_csv(table.to_arrow([image(number) for number in numbers(browser)] + [REFUSED])).decode()
    whole = {row["input_id"]: row for row in csv.DictReader(made.splitlines())}
    for row in saved:
        assert {name: plain(text) for name, text in row.items()}.items() <= {
            name: plain(text) for name, text in whole[row["input_id"]].items()
        }.items()


def plain(text: str) -> str | float:
    """A cell's number, which each language writes in its own way, or its text."""
    try:
        return float(text)
    except ValueError:
        return text


def test_nothing_to_save_where_no_row_matches(browser):
    browser.find_element(By.ID, "filter-text").send_keys("no such image")
    assert not browser.find_element(By.ID, "rows-save").is_enabled()
