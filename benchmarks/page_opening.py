"""How long a browser takes to open a page: until it answers, and until it is loaded.

    python benchmarks/report_growth.py 200 --rows 40 --keep /somewhere
    python benchmarks/page_opening.py /somewhere/growth/report.html

Opens it in a Chromium without a window, each time in a new profile; needs Playwright and Chromium
(`chromium` on the path). Prints one JSON line: milliseconds, median and highest.
"""

import argparse
import json
import shutil
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main() -> None:
    """Open the page again and again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--times", type=int, default=9)
    given = parser.parse_args()
    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        opened(browser, given.page)  # what the first one starts, the others find started
        found = [opened(browser, given.page) for _ in range(given.times)]
        browser.close()
    said: dict[str, object] = {"bytes": given.page.stat().st_size, "times": given.times}
    for name, values in zip(("interactive_ms", "loaded_ms"), zip(*found, strict=True), strict=True):
        said[name] = {"median": round(median(values)), "highest": round(max(values))}
    print(json.dumps(said))


def opened(browser: Browser, page: Path) -> tuple[float, float]:
    """Open a page in a new profile; return the milliseconds until it answered and was there."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    one = context.new_page()
    one.goto(page.resolve().as_uri())
    timing = one.evaluate(
        "(({domInteractive, loadEventEnd}) => [domInteractive, loadEventEnd])"
        "(performance.getEntriesByType('navigation')[0])"
    )
    context.close()
    return timing[0], timing[1]


if __name__ == "__main__":
    main()
