"""The report: what it says, what it never says, and that it is a function of the table and the pictures alone."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import re
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from covseg import table
from covseg.archive.pictures import choose
from covseg.archive.scratch import open_scratch
from covseg.errors import Reason, Status
from covseg.records import Masks, Row, input_id
from covseg.report import Gallery, Head, picture, render, words
from covseg.report.cohort import BINS, summarise
from covseg.report.quota import GROUPS, MOST
from covseg.report.selection import select
from covseg.stages import doubt, severity
from covseg.stages.severity import GRADE_TABLE, GRADES, QC_FLAGS

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{7*7}}"


def image_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def scored(number: int, fraction: float | None, **more) -> Row:
    """A scored row whose two lungs and six zones all carry the same fraction."""
    grade = None if fraction is None else GRADES[severity.step(fraction)]
    zones = [
        f"infected_fraction_{side}{level}"
        for side in ("right", "left")
        for level in ("", "_upper", "_middle", "_lower")
    ]
    values = dict.fromkeys(["infected_fraction", *zones], fraction) | {"grade": grade}
    values |= {"extent_0_8": fraction and 2, "infection_probability": 0.5, "grade_table": GRADE_TABLE}
    values |= {"model_id": "compact-0", "backend": "torch"} | more
    return Row(image_id(number), f"secret-folder/film {number}.png", "etag", "sha", 10, Status.SCORED, **values)


def refused(number: int, reason: Reason) -> Row:
    stage = "fetch" if reason is Reason.CHANGED else "read"
    detail = "planned with ETag secret" if stage == "fetch" else "2 bytes, <wanted> more"
    return Row(
        image_id(number), f"secret-folder/{number}", "secret etag", None, 10, reason.status, reason,
        stage=stage, exception_class="SecretError", detail=detail,
    )  # fmt: skip


def masks(lung: tuple[slice, slice], infection: tuple[slice, slice], shape: tuple[int, int]) -> Masks:
    full = [np.zeros(shape, np.uint8) for _ in range(2)]
    for mask, box in zip(full, (lung, infection), strict=True):
        mask[box] = 1
    return Masks(full[0], full[1], full[0], False, 0.0, 1, 1.0)


def drawn(input_id: str, shape: tuple[int, int] = (64, 64)):
    height, width = shape
    box = masks((slice(0, height), slice(0, width // 2)), (slice(0, height // 4), slice(0, width // 4)), shape)
    return picture(input_id, np.full(shape, 0.5, np.float32), box.lung, box.infection, np.zeros((16, 16), np.float32))


class Page(HTMLParser):
    """Tags of a page with their attributes."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def mixed() -> pa.Table:
    flags = [("laterality_unverified",), ("laterality_unverified", "one_lung_only"), ()]
    rows = [scored(number, number / 40, qc_flags=flags[number % 3]) for number in range(41)]
    rows += [
        scored(50, None, qc_flags=("lungs_not_found",)),
        refused(60, Reason.EMPTY),
        refused(61, Reason.NOT_RADIOGRAPH),
        refused(62, Reason.CHANGED),
    ]
    return table.to_arrow(rows)


def test_the_same_table_gives_the_same_bytes_however_it_is_cut_or_ordered_in_chunks(mixed):
    pictures = [drawn(image_id(number)) for number in range(5)]
    pieces = pa.concat_tables([mixed.slice(0, 7), mixed.slice(7, 1), mixed.slice(8)])
    assert render(mixed, pictures) == render(mixed, pictures) == render(pieces, pictures)


def test_neither_source_key_nor_etag_nor_exception_reaches_the_page(mixed):
    page = render(mixed, [drawn(image_id(3))])
    assert b"secret" not in page.lower()
    assert image_id(3).encode() in page


def test_the_detail_of_a_refusal_reaches_the_page_unless_it_is_of_the_fetch(mixed):
    details = {row["reason"]: row["detail"] for row in select(mixed).rows if row["status"] != "scored"}
    assert details == dict.fromkeys(("empty", "not_radiograph"), "2 bytes, <wanted> more") | {"changed": None}
    assert b"2 bytes, \\u003cwanted\\u003e more" in render(mixed, [])


def test_a_table_without_the_key_column_gives_the_same_report(mixed):
    assert render(mixed.drop_columns(["key", "etag"]), []) == render(mixed, [])


def test_hostile_text_in_every_text_column_stays_text(mixed):
    rows = scored(1, 0.4), refused(2, Reason.EMPTY)
    hostile = table.to_arrow(rows).to_pylist()
    for row in hostile:
        for name in row:
            if pa.types.is_string(table.SCHEMA.field(name).type) and name not in ("status", "key"):
                row[name] = HOSTILE + (row["input_id"] if name == "input_id" else "")
        row["qc_flags"] = [HOSTILE]
    page = Page(render(pa.Table.from_pylist(hostile, schema=table.SCHEMA), [drawn(hostile[0]["input_id"])]))
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert all(attributes["src"].startswith("data:image/") for tag, attributes in page.tags if tag == "img")


def test_the_page_names_no_address_outside_itself(mixed):
    page = render(mixed, [drawn(image_id(3))])
    assert not re.search(rb"https?:|//[a-z0-9-]+\.[a-z]|url\(\s*['\"]?(?!#)|@import", page)
    for _, attributes in Page(page).tags:
        assert all(attributes.get(name, "#").startswith(("#", "data:image/")) for name in ("src", "href", "action"))


def test_the_policy_allows_this_style_and_this_script_by_digest_and_nothing_else(mixed):
    page = render(mixed, [])
    tags = Page(page).tags
    policy = next(attributes["content"] for _, attributes in tags if "http-equiv" in attributes)
    parts = [re.search(rb"<%s>(.*?)</%s>" % (tag, tag), page, flags=re.DOTALL)[1] for tag in (b"style", b"script")]
    digests = [base64.b64encode(hashlib.sha256(part).digest()).decode() for part in parts]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not [tag for tag, attributes in tags if "style" in attributes]


def test_every_status_reason_flag_and_grade_of_the_closed_sets_has_plain_words():
    assert set(words.STATUSES) == set(Status)
    assert set(words.REASONS) == set(Reason)
    assert set(words.FLAGS) == set(QC_FLAGS)
    assert tuple(words.GRADE_TABLES[GRADE_TABLE]) == GRADES


def test_a_word_that_the_report_does_not_know_is_shown_and_said_to_be_unknown():
    page = render(table.to_arrow([scored(1, 0.1, qc_flags=("made_of_glass",))]), []).decode()
    assert "made of glass" in page
    assert words.UNKNOWN in page


def test_grades_of_an_unknown_grade_table_are_counted_without_edges():
    cohort = summarise(table.to_arrow([scored(1, 0.3, grade="pink", grade_table="other-1")]))
    assert [(bar.name, bar.count, bar.words) for bar in cohort.grades] == [("pink", 1, words.UNKNOWN)]


def test_planned_is_scored_plus_refused_by_reason(mixed):
    cohort = summarise(mixed)
    assert (cohort.planned, cohort.scored, cohort.refused) == (45, 42, 3)
    assert sum(bar.count for bar in cohort.statuses) == cohort.planned
    assert {refusal.bar.name: refusal.ids for refusal in cohort.refusals} == {
        "empty": [image_id(60)], "not_radiograph": [image_id(61)], "changed": [image_id(62)],
    }  # fmt: skip


def test_sound_files_out_of_scope_are_counted_apart_from_damaged_ones(mixed):
    page = " ".join(render(mixed, []).decode().split())
    wanted = (
        "1 out of scope (sound files, taken for no frontal chest radiograph), 1 damaged or unusable, 1 changed, gone or"
    )
    assert wanted in page


def test_the_page_says_that_an_image_under_the_presence_threshold_is_marked_nowhere(mixed):
    pages = {limit: render(mixed, [drawn(image_id(3))], limit).decode() for limit in (0.28112, None, 0.0)}
    legend = "none on an image whose infection probability is under the model’s image-level threshold"
    assert [legend in page for page in pages.values()] == [True, True, False]
    assert [words.PRESENCE in page for page in pages.values()] == [True, True, False]
    assert f"{legend} of 0.281</li>" in pages[0.28112]
    assert "This model’s is 0.281." in pages[0.28112]


def test_a_probability_above_zero_never_reads_zero():
    values = {0: 0.00003, 1: 0.0049, 2: 0.0, 3: 0.005, 4: 0.5}
    rows = [scored(number, number / 10, infection_probability=value) for number, value in values.items()]
    page = render(table.to_arrow(rows), []).decode()
    shown = re.findall(r'<td class="number">([^<]*)</td><td class="number">[^<]*</td><td class="status">', page)
    assert shown == ["0.50", "0.01", "0.00", "&lt;\N{NO-BREAK SPACE}0.01", "&lt;\N{NO-BREAK SPACE}0.01"]


def test_no_switch_for_the_probability_where_no_picture_has_one(mixed):
    one = drawn(image_id(3))
    page, bare = (render(mixed, [picture]).decode() for picture in (one, replace(one, probability="")))
    assert [text.count("Probability: the model’s") for text in (page, bare)] == [1, 0]
    assert [text.count(">Probability</button>") for text in (page, bare)] == [2, 1]  # the large view hides its own


def test_an_image_without_lungs_counts_in_no_mean_and_in_no_bar():
    cohort = summarise(table.to_arrow([scored(1, 0.4), scored(2, None, qc_flags=("lungs_not_found",))]))
    assert (cohort.measured, cohort.no_lungs, cohort.zero) == (1, 1, 0)
    assert (cohort.scales[0].n, cohort.scales[0].mean) == (1, 0.4)
    assert [(zone.n, zone.mean, zone.affected) for zone in cohort.zones] == [(1, 0.4, 1.0)] * 6
    assert sum(bar.count for bar in cohort.grades) == sum(bar.count for bar in cohort.histogram) == 1


def test_notes_on_the_kind_of_file_are_no_reason_to_look():
    flags = [("laterality_unverified", "missing_spacing"), ("missing_spacing", "rotated"), ("inverted",), ()]
    cohort = summarise(table.to_arrow([scored(number, 0.1, qc_flags=some) for number, some in enumerate(flags)]))
    assert (cohort.flagged, cohort.noted) == (2, 3)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60))
def test_every_fraction_falls_into_the_bar_that_names_it(values):
    cohort = summarise(table.to_arrow([scored(number, value / 10_000) for number, value in enumerate(values)]))
    step = 10_000 // BINS
    expected = [sum(min(value // step, BINS - 1) == place for value in values if value) for place in range(BINS)]
    assert [bar.count for bar in cohort.histogram] == expected
    assert cohort.zero == values.count(0)


@pytest.mark.parametrize(
    "rows",
    [[], [refused(1, Reason.EMPTY)], [scored(1, 0.5)], [scored(1, None)], [scored(1, 0.0)]],
    ids=["empty", "all refused", "one image", "no lungs", "all at zero"],
)
def test_a_small_cohort_of_any_kind_has_a_whole_report(rows):
    page = render(table.to_arrow(rows), []).decode()
    assert "Research use only, not for diagnosis." in page
    assert "It does not mean clear lungs." in page
    assert "None" not in re.sub(r"<script.*?</script>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert "nan" not in re.sub(r"<[^>]*>|<script.*?</script>", "", page, flags=re.DOTALL).lower().split()


def test_a_table_within_the_limit_is_embedded_whole_worst_first(mixed):
    selection = select(mixed)
    assert selection.complete
    fractions = [row["infected_fraction"] for row in selection.rows if row["infected_fraction"] is not None]
    assert fractions == sorted(fractions, reverse=True)
    assert [row["infected_fraction"] for row in selection.rows[41:]] == [None] * 4
    assert {row["status"] for row in selection.rows[42:]} == {"out_of_scope", "quarantined", "changed"}


def test_a_large_table_gives_the_worst_a_sample_and_some_refusals_and_says_so():
    rows = [scored(number, (number % 1000) / 1000) for number in range(2400)]
    rows += [refused(number, Reason.EMPTY) for number in range(5000, 5300)]
    severity_table = table.to_arrow(rows)
    selection = select(severity_table)
    assert (len(selection.rows), selection.worst, selection.sampled, selection.refused) == (2000, 1000, 900, 100)
    fractions = sorted((row.infected_fraction for row in rows if row.infected_fraction is not None), reverse=True)
    assert [row["infected_fraction"] for row in selection.rows[:1000]] == fractions[:1000]
    page = render(severity_table, []).decode()
    assert "2,000 of 2,700 rows are here: the 1,000 most marked images" in page


def test_of_a_large_table_the_most_doubtful_images_are_there_and_come_first_though_little_is_marked():
    rows = [scored(number, 0.5, doubt=0.1) for number in range(2400)]
    hidden = {"doubt_reason": "colour_unmarked"}
    rows += [scored(number, 0.0, doubt=0.09 - number / 1e6, **hidden) for number in range(3000, 3020)]
    rows += [refused(number, Reason.EMPTY) for number in range(5000, 5300)]
    selection = select(table.to_arrow(rows))
    looked_at = selection.doubtful["Nothing marked"]
    assert [row["input_id"] for _, row in looked_at] == [image_id(number) for number in range(3000, 3005)]
    assert len(selection.doubtful["Marked"]) == 5
    assert len(selection.rows) == 2000
    page = render(table.to_arrow(rows), []).decode()
    assert page.count(words.DOUBTS["colour_unmarked"] + "</span>") == 5
    assert page.index("Look at these first") < page.index('id="summary-title"')


def test_a_table_without_doubt_has_no_section_to_look_at_first(mixed):
    assert b"Look at these first" not in render(mixed, [])
    certain = table.to_arrow([scored(1, 0.2, doubt=0.0)])
    assert b"Look at these first" not in render(certain, [])


def test_each_picture_is_in_the_page_once_though_images_of_high_doubt_are_shown_twice():
    rows = [scored(number, number / 20, doubt=number / 20, doubt_reason="undecided_pixels") for number in range(20)]
    pictures = [drawn(row.input_id, (64, 32 + number)) for number, row in enumerate(rows)]
    page = Page(render(table.to_arrow(rows), pictures))
    images = [attributes["href"] for tag, attributes in page.tags if tag == "image"]
    assert len(images) == 2 * len(pictures)  # radiograph and probability
    assert {one.image for one in pictures} <= set(images)
    again = [attributes["href"] for tag, attributes in page.tags if tag == "use"]
    named = [attributes["id"] for tag, attributes in page.tags if (attributes.get("id") or "").startswith("picture-")]
    assert len(again) == 5 == len(set(again))
    assert {f"#{name}" for name in named} > set(again)


def test_the_head_says_what_it_was_told_as_text_and_no_more_than_that(mixed):
    bare, headed = (
        render(mixed, [], head=head).decode() for head in (Head(), Head(HOSTILE, "<i>ward</i>", "2026-11-26"))
    )
    assert "<h1>Lung infection on chest radiographs</h1>" in bare
    assert 'class="origin"' not in bare
    assert 'Source: &lt;i&gt;ward&lt;/i&gt; · Scored on <time datetime="2026-11-26">2026-11-26</time> (UTC)' in headed
    assert [tag for tag, _ in Page(headed.encode()).tags].count("script") == 2


def test_a_head_names_the_day_in_utc_and_has_a_title_without_one():
    late = datetime.fromisoformat("2026-11-26T23:30:00-05:00")
    assert Head.of("", "", late) == Head("Lung infection on chest radiographs", "", "2026-11-27")


def test_an_overlay_is_led_to_from_its_row_and_from_no_other(mixed):
    page = render(mixed, [], overlays={image_id(3): "overlays/3.jpg", "elsewhere": "overlays/x.jpg"}).decode()
    assert f'"overlays": {{"{image_id(3)}": "overlays/3.jpg"}}' in page


def test_every_part_of_a_doubt_has_plain_words():
    assert set(words.DOUBTS) == set(doubt.REASONS)


def test_a_refused_image_is_shown_with_what_it_was_taken_for_among_the_refusals_and_not_among_the_scored():
    judged = replace(refused(2, Reason.NOT_FRONTAL_CHEST), stage="input_filter", detail="taken for: other; limit 1.15")
    empty = np.zeros((8, 8), np.uint8)
    pictures = [drawn(image_id(1)), picture(image_id(2), np.zeros((8, 8), np.float32), empty, empty)]
    page = render(table.to_arrow([scored(1, 0.4), judged]), pictures).decode()
    before, after = page.split('id="refused-gallery"')
    assert image_id(2)[:12] not in before.split('id="gallery"')[1].split("</ul>")[0]
    assert "taken for: other; limit 1.15" in after.split("</ul>")[0]
    assert "1 image that was taken for something else" in " ".join(before.split())


def offer_all(gallery: Gallery, rows: list[Row]) -> list[str]:
    box = masks((slice(0, 4), slice(0, 4)), (slice(0, 1), slice(0, 1)), (8, 8))
    for row in rows:
        gallery.offer(row, np.zeros((8, 8), np.float32), *([box] if row.status == "scored" else []))
    return [one.input_id for one in gallery.pictures()]


FEW = tuple(replace(group, quota=4) for group in GROUPS)


def any_row(number: int) -> Row:
    """Rows of every group, many of several."""
    if number % 9 == 0:
        return replace(refused(number, Reason.NOT_FRONTAL_CHEST), stage="input_filter" if number % 2 else "read")
    flags = [(), ("out_of_distribution",), ("missing_spacing",), ("rotated", "missing_spacing")][number % 4]
    fraction = None if number % 31 == 0 else (number % 7) / 6.5 * (number % 3 > 0)
    return scored(number, fraction, qc_flags=flags, doubt=number % 13 / 13, gate_score=number % 11 / 11)


def test_every_picture_that_a_gallery_keeps_has_its_row_in_a_large_table():
    rows = [any_row(number) for number in range(2500)]
    random.Random(1).shuffle(rows)
    gallery = Gallery()
    kept = offer_all(gallery, rows)
    assert 300 < len(kept) <= sum(group.quota for group in GROUPS) == MOST
    page = render(table.to_arrow(rows), gallery.pictures())
    doubtful = 10  # shown once more at the top
    assert page.count(b'class="image"') == len(kept) + doubtful


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(40)))
def test_what_a_gallery_keeps_does_not_depend_on_the_order_of_images(order):
    assert offer_all(Gallery(FEW), [any_row(number) for number in order]) == offer_all(
        Gallery(FEW), [any_row(number) for number in range(40)]
    )


def test_the_sample_of_a_grade_is_a_draw_that_the_project_key_decides():
    [moderate] = [group for group in FEW if group.name == "moderate"]

    def drawn_by(key: bytes) -> set[str]:
        rows = [scored(number, 0.3) for number in range(60)]
        named = [replace(row, input_id=input_id(key, "b", row.key, "1")) for row in rows]
        kept = set(offer_all(Gallery((moderate,)), named))
        return {row.key for row in named if row.input_id in kept}

    draws = [drawn_by(bytes([number]) * 32) for number in range(40)]
    assert drawn_by(bytes(32)) == draws[0] and all(len(draw) == moderate.quota for draw in draws)
    assert len(set(map(frozenset, draws))) > 35 and len(set().union(*draws)) > 50  # of 60: nobody is always left out


def test_no_group_crowds_out_another():
    kept = set(offer_all(Gallery(FEW), rows := [any_row(number) for number in range(900)]))
    for group in FEW:
        assert sum(group.holds(row) for row in rows if row.input_id in kept) >= 4, group.name


def test_a_snapshot_draws_the_very_images_that_a_gallery_keeps():
    rows = [any_row(number) for number in range(2500)]
    with open_scratch() as work:
        work.db.from_arrow(table.to_arrow(rows)).create("rows")
        assert [image.input_id for image in choose(work.db, MOST)] == offer_all(Gallery(), rows)


def test_a_picture_of_an_image_that_is_not_in_the_table_is_an_error(mixed):
    with pytest.raises(ValueError, match="has no row"):
        render(mixed, [drawn("ffff")])


def test_a_thumbnail_keeps_the_proportions_of_the_image():
    one = drawn("a", shape=(300, 600))
    assert (one.height, one.width) == (128, 256)
    image = Image.open(io.BytesIO(base64.b64decode(one.image.removeprefix("data:image/jpeg;base64,"))))
    assert image.size == (256, 128)


def corners(path: str) -> np.ndarray:
    """Points of a one-contour path, its relative steps summed up."""
    start, steps = re.fullmatch(r"M(\d+ \d+)l([-\d ]+)z", path).groups()
    return np.cumsum(np.array([*start.split(), *steps.split()], int).reshape(-1, 2), axis=0)


def test_a_contour_runs_along_the_edge_of_its_mask():
    box = masks((slice(100, 900), slice(40, 300)), (slice(200, 400), slice(60, 160)), (1000, 1000))
    one = picture("a", np.zeros((1000, 1000), np.float32), box.lung, box.infection)
    for path, edges in ((one.lung, (40, 100, 300, 900)), (one.infection, (60, 200, 160, 400))):
        points = corners(path)
        found = np.array([*points.min(axis=0), *points.max(axis=0)]) * 1000 / 256
        assert np.abs(found - edges).max() < 8  # two pixels of the thumbnail


def test_the_probability_layer_is_clear_at_zero_and_stronger_towards_one():
    probability = np.repeat(np.linspace(0, 1, 64, dtype=np.float32)[None], 64, axis=0)
    box = masks((slice(0, 9), slice(0, 9)), (slice(0, 9), slice(0, 9)), (64, 64))
    one = picture("a", np.zeros((64, 64), np.float32), box.lung, box.infection, probability)
    layer = Image.open(io.BytesIO(base64.b64decode(one.probability.removeprefix("data:image/png;base64,"))))
    assert layer.mode == "P"
    opacity = np.asarray(layer.convert("RGBA"))[32, :, 3].astype(int)
    assert opacity[0] == 0
    assert opacity[-1] > 150
    assert (np.diff(opacity) >= 0).all()


def test_without_infection_there_is_no_infection_contour():
    box = masks((slice(0, 9), slice(0, 9)), (slice(0, 0), slice(0, 0)), (64, 64))
    assert picture("a", np.zeros((64, 64), np.float32), box.lung, box.infection).infection == ""


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_text_stands_out_from_its_ground_as_wcag_aa_asks(scheme):
    blocks = re.findall(
        r":root \{(.*?)\}", (files("covseg.report") / "templates" / "report.css").read_text("utf-8"), flags=re.DOTALL
    )
    names = dict(re.findall(r"--([\w-]+): (#\w+)", blocks[0]))
    names |= dict(re.findall(r"--([\w-]+): (#\w+)", blocks[{"light": 0, "dark": 1, "print": 2}[scheme]]))
    names = {
        name: "#" + "".join(c * 2 for c in value[1:]) if len(value) == 4 else value for name, value in names.items()
    }
    pairs = [(ink, ground) for ink in ("ink", "soft", "accent") for ground in ("paper", "card", "sunk")]
    pairs += [("warn-ink", "warn"), ("ink", "accent-soft")] + [("z-ink", f"z{shade}") for shade in range(4)]
    pairs += [("z-ink-dark", "z4"), ("z-ink-dark", "z5")]
    for ink, ground in pairs:
        bright, dim = sorted((luminance(names[ink]), luminance(names[ground])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ink, ground)
