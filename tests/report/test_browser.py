"""The page in a real browser: no error, no overflow, sorting, filtering, linked rows, and print.

Needs Playwright (an extra for development) and Chromium, which is Debian's where it is there.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blocklab.report.page import Live, html, write_report
from blocklab.report.row_page import write_row_pages
from blocklab.report.side_by_side import write_side_by_side
from blocklab.results.study_results import StudyResults

api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

MakeResults = Callable[..., StudyResults]
WIDTHS = (390, 768, 1024, 1440, 1920)
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator["api.Browser"]:
    with api.sync_playwright() as playwright:
        # A system's policies have no say in what a test sees.
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield made
        made.close()


class Opened:
    """A page that is open, and all that its console and its requests said."""

    def __init__(self, browser: "api.Browser", path: Path, **options: object) -> None:
        # No fading: a style is what it will be as soon as it is asked for.
        options.setdefault("reduced_motion", "reduce")
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def rows(self) -> list[str]:
        """The names of the rows that are seen, from the top."""
        names = self.page.locator("#rows tbody tr:not(.out) th").all_inner_texts()
        return [name.split()[0] for name in names]

    def overflow(self) -> int:
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )


@pytest.fixture
def opened(browser: "api.Browser") -> Iterator[Callable[..., Opened]]:
    made: list[Opened] = []

    def make(path: Path, **options: object) -> Opened:
        made.append(Opened(browser, path, **options))
        return made[-1]

    yield make
    for one in made:
        one.context.close()


@pytest.fixture(scope="module")
def kept() -> dict[str, Path]:
    """What is written once for all tests."""
    return {}


@pytest.fixture
def study(make_results: MakeResults, tmp_path: Path, kept: dict[str, Path]) -> Path:
    """The folder of a study of four rows, one of which is better and one undertrained."""
    if "study" in kept:
        return kept["study"]
    results = make_results(
        {
            "plain": [76.0, 76.2, 76.1],
            "triplet": [78.0, 78.1, 78.3],
            "se_long_name_that_goes_on": [76.1, 76.0, 76.3],
            "coordinate": [70.0, 70.3, 70.1],
        },
        claims=("triplet > plain",),
        images=200,
    )
    for run in results.rows[3].runs:
        for line in run.log:
            line["train_loss"] = 4.0 - 0.1 * line["epoch"]
    folder = tmp_path / "study"
    write_row_pages(results, folder)
    links = write_row_pages(results, folder)
    (folder / "report.html").write_text(html(results, links=links), encoding="utf-8")
    kept["study"] = folder
    return folder


def test_rows_sort_and_filter_by_mouse_and_by_keyboard(
    opened: Callable[..., Opened], study: Path
) -> None:
    one = opened(study / "report.html")
    page, given = one.page, ["plain", "triplet", "se_long_name_that_goes_on", "coordinate"]
    assert one.rows() == given
    top1 = page.locator("#rows thead th", has_text=re.compile(r"^top.1$"))
    top1.get_by_role("button").click()
    assert one.rows() == ["triplet", "se_long_name_that_goes_on", "plain", "coordinate"]
    assert top1.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")  # on the button that has the focus
    assert one.rows() == ["coordinate", "plain", "se_long_name_that_goes_on", "triplet"]
    page.keyboard.press("Enter")
    assert one.rows() == given and top1.get_attribute("aria-sort") is None
    page.get_by_role("button", name="minus plain (points)", exact=True).click()
    assert one.rows() == ["triplet", "se_long_name_that_goes_on", "coordinate", "plain"]
    page.locator("#filter").focus()
    page.keyboard.type("coord")
    assert one.rows() == ["coordinate"]
    assert page.locator("#shown").inner_text() == "1 of 4 rows"
    page.locator("#filter").fill("")
    page.get_by_role("button", name="1 better").click()
    assert one.rows() == ["triplet"]
    page.reload()  # what was chosen stays, as on a page that reads itself again
    assert one.rows() == ["triplet"]
    page.get_by_role("button", name="1 better").press("Space")
    assert len(one.rows()) == 4
    assert one.errors == []


def test_a_row_lights_up_in_every_figure(opened: Callable[..., Opened], study: Path) -> None:
    one = opened(study / "report.html")
    page = one.page
    page.locator("summary", has_text="Curves over epochs").click()
    page.locator("summary", has_text="Accuracy against cost").click()

    def lit() -> set[str]:
        return set(page.eval_on_selector_all(".lit", "all => all.map(one => one.dataset.row)"))

    page.locator("#rows tbody tr").nth(1).hover()
    assert lit() == {"1"}
    figures = page.eval_on_selector_all(
        ".lit", "all => all.map(one => one.closest('.drawing')?.id).filter(Boolean)"
    )
    drawn = ("validation_accuracy_over_epochs", "accuracy_against_macs", "accuracy_of_each_seed")
    assert set(drawn) <= set(figures)
    dim = page.locator("#validation_accuracy_over_epochs [data-row='2']").first
    assert dim.evaluate("one => getComputedStyle(one).transitionDuration") == "0s"
    assert float(dim.evaluate("one => getComputedStyle(one).opacity")) < 0.5
    page.mouse.move(0, 0)
    assert lit() == set()
    page.get_by_role("link", name="coordinate").focus()
    assert lit() == {"3"}
    # pointing at a mark says what it is, and lights up its row
    page.keyboard.press("Escape")
    page.locator("#accuracy_against_macs [data-said^='triplet']").last.hover()
    assert lit() == {"1"}
    assert page.locator(".hint").inner_text().startswith("triplet: 78.17 %, MACs 2.650 G")
    assert one.errors == []


def test_nothing_overflows_fails_or_is_fetched(opened: Callable[..., Opened], study: Path) -> None:
    for path in (study / "report.html", study / "rows" / "coordinate.html"):
        one = opened(path)
        one.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        for width in WIDTHS:
            one.page.set_viewport_size({"width": width, "height": 900})
            assert one.overflow() <= 0, (path.name, width)
        assert one.errors == [] and one.asked == [path.as_uri()]


def test_a_phone_sees_figures_whole_and_verdicts_beside_names(
    opened: Callable[..., Opened], study: Path
) -> None:
    phone = {"width": 390, "height": 844}
    page = opened(study / "report.html", viewport=phone).page
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    cut = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.id)"
    assert page.locator(".drawing").evaluate_all(cut) == []
    letters = page.locator(".drawing text").evaluate_all(
        "all => all.filter(one => one.checkVisibility())"
        ".map(one => [parseFloat(getComputedStyle(one).fontSize), one.getScreenCTM()])"
        ".map(([size, to]) => size * Math.hypot(to.a, to.b))"
    )
    assert len(letters) > 50 and min(letters) > 9
    line = page.locator("#rows tbody tr").nth(1)
    assert line.locator(".drawn").is_hidden()
    for said in ("better", "+2.17 ["):
        seen = line.locator("td", has_text=said).bounding_box()
        assert seen is not None and seen["x"] + seen["width"] < 390, said
    under = "#results > p.soft"
    assert page.locator(under).inner_text().startswith("In brackets behind a difference: an")
    wide = opened(study / "report.html").page.locator(under).inner_text()
    assert wide.startswith("Dot: the difference of means; bar: an") and "brackets" not in wide
    page = opened(study / "rows" / "coordinate.html", viewport=phone).page
    link, button = page.locator(".lead a").bounding_box(), page.locator(".theme").bounding_box()
    assert link is not None and button is not None and link["x"] + link["width"] <= button["x"]


def test_a_phone_sees_every_study_of_several(
    opened: Callable[..., Opened], make_results: MakeResults, tmp_path: Path
) -> None:
    one = make_results({"plain": [76.0, 76.2, 76.1], "triplet": [78.0, 78.1, 78.3]})
    path = write_side_by_side({"quick": one, "strong": one}, tmp_path)
    several = opened(path, viewport={"width": 390, "height": 844})
    for study in ("quick", "strong"):
        cell = several.page.get_by_role("region", name=study).get_by_text("better")
        seen = cell.bounding_box()
        assert seen is not None and seen["x"] + seen["width"] < 390
    several.page.get_by_role("button", name="Use dark colours").click()
    assert several.page.evaluate("document.documentElement.dataset.theme") == "dark"
    several.page.set_viewport_size({"width": 1440, "height": 900})
    assert several.page.get_by_role("region", name="strong").count() == 0
    assert several.errors == [] and several.overflow() <= 0


def test_colours_follow_the_system_and_the_button(
    opened: Callable[..., Opened], study: Path
) -> None:
    dark = opened(study / "report.html", color_scheme="dark").page

    def paper() -> str:
        return dark.evaluate("getComputedStyle(document.body).backgroundColor")

    assert paper() == "rgb(21, 23, 27)"
    dark.get_by_role("button", name="Use light colours").click()
    assert paper() == "rgb(255, 255, 255)"
    dark.reload()
    assert paper() == "rgb(255, 255, 255)"


def test_without_scripts_all_of_it_is_there(opened: Callable[..., Opened], study: Path) -> None:
    one = opened(study / "report.html", java_script_enabled=False)
    page = one.page
    assert page.locator(".tools").is_hidden()
    assert page.get_by_role("img", name="+2.17 [").count() == 1
    page.locator("summary", has_text="Accuracy against cost").click()
    assert page.locator("#accuracy_against_macs").is_visible()
    page.get_by_role("radio", name="Training time").check()
    assert page.locator("#accuracy_against_time").is_visible()
    assert page.locator("#accuracy_against_macs").is_hidden()


def fits_on_paper(one: Opened) -> None:
    """Each row is on one line, and nothing is so wide that Chromium would print all smaller."""
    one.page.emulate_media(media="print")
    one.page.set_viewport_size({"width": 703, "height": 1000})  # A4 within its margins
    assert one.overflow() <= 0
    rows = one.page.locator("#rows tbody tr")
    heights = rows.evaluate_all("all => all.map((row) => row.offsetHeight)")
    assert min(heights) > 0 and max(heights) < 24, heights


def test_it_prints_to_two_pages(opened: Callable[..., Opened], study: Path) -> None:
    one = opened(study / "report.html")
    printed = one.page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 2
    fits_on_paper(one)
    for only_on_a_screen in (".theme", ".tools", "#results a[href='#columns']"):
        assert one.page.locator(only_on_a_screen).is_hidden()


def test_a_running_study_reads_itself_again(
    opened: Callable[..., Opened], make_results: MakeResults, tmp_path: Path
) -> None:
    results = make_results({"plain": [76.0, "missing"], "se": ["missing", "missing"]})
    page = tmp_path / "report.html"
    page.write_text(
        html(results, drawn=(), live=Live("1 of 4 runs finished.", 1)), encoding="utf-8"
    )
    one = opened(page)
    assert one.page.locator(".live").inner_text() == "Running. 1 of 4 runs finished."
    page.write_text(html(results, drawn=()), encoding="utf-8")
    one.page.wait_for_selector(".live", state="detached")
    assert one.errors == []


AXE = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing_serious(
    opened: Callable[..., Opened], study: Path, scheme: str, width: int
) -> None:
    screen = {"width": width, "height": 900}
    for path in (study / "report.html", study / "rows" / "triplet.html"):
        page = opened(path, color_scheme=scheme, viewport=screen).page
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        found = AXE.Axe().run(page).response["violations"]
        serious = [
            (one["id"], [node["html"][:120] for node in one["nodes"][:3]])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []


def counted(one: Opened) -> Callable[[str], int]:
    """Return what tells how often Chromium did something since the page was opened."""
    session = one.context.new_cdp_session(one.page)
    session.send("Performance.enable")

    def count(name: str) -> int:
        one.page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        found = session.send("Performance.getMetrics")["metrics"]
        return int(next(metric["value"] for metric in found if metric["name"] == name))

    return count


@pytest.mark.slow
def test_forty_rows_of_five_seeds_are_light(
    opened: Callable[..., Opened], make_results: MakeResults, tmp_path: Path
) -> None:
    """Seconds are a machine's, so what takes them is counted; benchmarks/page_opening.py has them.

    The most that each count may be is some twice what it was when this was written.
    """
    accuracies = {
        f"res2net50_26w_4s_block{i:02}": [70 + i / 9 + j / 7 for j in range(5)] for i in range(40)
    }
    claims = ("res2net50_26w_4s_block09 > res2net50_26w_4s_block00",)
    page = write_report(make_results(accuracies, epochs=100, images=100, claims=claims), tmp_path)
    assert page.stat().st_size < 3_000_000
    one = opened(page)
    count = counted(one)
    elements = one.page.evaluate("document.querySelectorAll('*').length")
    scripts = one.page.evaluate("[...document.scripts].map((script) => script.text.length)")
    assert elements < 13_000 and count("JSEventListeners") < 80, elements
    assert len(scripts) == 1 and scripts[0] < 16_000
    # What a reader does costs one layout, however many rows there are: nothing is read back.
    laid_out = count("LayoutCount")
    one.page.evaluate("document.querySelectorAll('#rows th button')[3].click()")
    assert count("LayoutCount") <= laid_out + 2
    one.page.evaluate(
        "field = document.getElementById('filter'), field.value = 'block1',"
        "field.dispatchEvent(new Event('input'))"
    )
    assert count("LayoutCount") <= laid_out + 4
    assert len(one.rows()) == 10
    one.page.locator("#filter").fill("")
    assert len(one.rows()) == 40 and one.errors == []
    # On paper: the answer and every row, then the figures, the claim and the command.
    printed = one.page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 2
    fits_on_paper(one)
