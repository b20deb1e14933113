"""The pages of the course in Chromium, from a folder, with the network shut."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from course_pages import NAMES, writing, written
from hosts import OWN
from notebook_runs import NOTEBOOKS, ROOT, read

SLIDER = "input[type=range][aria-label=step]"
PHONE, PROJECTOR = (390, 844), (1024, 768)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return written(tmp_path_factory.mktemp("course"))


@pytest.fixture
def turned(browser):
    """turned(path, size, **context): a page of the folder; no error and no request at the end."""
    contexts, errors, asked = [], [], []

    def turn(path, size=PROJECTOR, **options):
        context = browser.new_context(viewport=dict(zip(("width", "height"), size, strict=True)),
                                      offline=True, **options)  # fmt: skip
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: asked.append(r.url) if not r.url.startswith(OWN) else None)
        page.on("requestfailed", lambda request: errors.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda told: errors.append(told.text) if told.type == "error" else None)
        page.goto(path.as_uri())
        return page

    yield turn
    for context in contexts:
        context.close()
    assert errors == [] and asked == []


def fits(page) -> bool:
    """Whether nothing makes the page wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_view_in_a_frame_moves_and_a_quiz_marks(site, turned):
    page = turned(site / "notebooks" / f"{NAMES[0]}.html")
    slider = page.frame_locator("iframe").nth(0).locator(SLIDER)
    slider.press("End")
    assert slider.get_attribute("aria-valuetext").startswith("step 4 of 4")
    quiz = page.frame_locator("iframe").nth(1)
    quiz.locator("input[type=radio]").first.check()
    quiz.get_by_role("button", name="Mark my answers").press("Enter")
    assert " right" in quiz.locator(".score").inner_text()


def test_stills_are_for_paper_and_for_pages_without_scripts(site, turned):
    path = site / "notebooks" / f"{NAMES[0]}.html"
    page = turned(path)
    still, frame = page.locator("figure:has(+ iframe)").first, page.locator("iframe").first
    assert frame.is_visible() and not still.is_visible()
    page.emulate_media(media="print")
    assert still.is_visible() and not frame.is_visible()
    assert not page.locator("header.site").is_visible()
    silent = turned(path, java_script_enabled=False)
    assert silent.locator("figure:has(+ iframe)").first.is_visible()


def test_a_reader_gets_around(site, turned):
    page = turned(site / "index.html")

    def follow(link, end):
        """By key: a page that is still being laid out moves away under a mouse."""
        page.get_by_role("link", name=link).first.press("Enter")
        page.wait_for_url(f"**/{end}")

    follow("1 · A lesson", f"notebooks/{NAMES[0]}.html")
    follow("Check yourself", f"{NAMES[0]}.html#check-yourself")
    fold = page.locator(".cell > details").first
    assert not fold.locator("pre").first.is_visible()
    fold.locator("summary").press("Enter")
    fold.locator("pre").first.wait_for()
    follow("latent", "docs/glossary.html#latent")
    page.go_back()
    follow("02 another →", f"{NAMES[1]}.html")
    follow("the README", "README.html")
    assert page.locator("h1").inner_text() == "The package"
    page.wait_for_function("document.images[0].naturalWidth > 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, PROJECTOR])
def test_there_is_room_and_contrast(site, turned, size, scheme):
    for name in ("index.html", f"notebooks/{NAMES[0]}.html", "docs/glossary.html"):
        page = turned(site / name, size, color_scheme=scheme)
        assert fits(page), name
        found = Axe().run(page, options={"iframes": False}).response["violations"]
        told = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
        assert [one for one in told if one[0] != "image-redundant-alt"] == []
    toc = page.locator("nav.toc"), page.locator("details.toc")
    assert not any(part.is_visible() for part in toc), "the glossary is too short for one"


def test_the_contents_stand_beside_or_above_the_text(site, turned):
    path = site / "notebooks" / f"{NAMES[0]}.html"
    wide, narrow = turned(path), turned(path, PHONE)
    assert wide.locator("nav.toc").is_visible() and not wide.locator("details.toc").is_visible()
    assert narrow.locator("details.toc").is_visible()
    assert not narrow.locator("nav.toc").is_visible()


def test_every_page_of_the_course_opens(tmp_path, turned):
    writing.write_course({path: read(path) for path in NOTEBOOKS}, tmp_path / "site", ROOT)
    page = turned(tmp_path / "site" / "index.html")
    for path in sorted((tmp_path / "site").rglob("*.html")):
        page.goto(path.as_uri())
        broken = "[...document.images].filter((i) => i.complete && !i.naturalWidth).length"
        assert page.evaluate(broken) == 0, path
        for size in (PROJECTOR, PHONE):
            page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
            assert fits(page), (path, size)
