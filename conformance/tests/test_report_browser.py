"""The report's page in a real browser: everything it shows and does, and an empty console.

The report is `sample.hostile()`: five cases on four builds, of which one and whose case are hostile."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmig_conformance.report.html import write_html
from qmig_conformance.report.sample import DEVICES, FLAG, LENGTH, MAGIC, NEW, OLD, ORDER, hostile, large


class Browser:
    """A headless Chromium with the page of `report` open."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.address = address

    def open(self, hash: str = "", *, width: int = 1400, dark: bool = False, media: str = "") -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": scheme})
        size = {"width": width, "height": 860, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.driver.get(self.address + hash)

    def js(self, script: str, *arguments: Any) -> Any:
        """The value of an expression."""
        return self.driver.execute_script(f"return {script}", *arguments)

    def do(self, script: str, *arguments: Any) -> None:
        self.driver.execute_script(script, *arguments)

    def until(self, script: str) -> None:
        """Waits for what the page does by itself. The deadline is a watchdog."""
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, 30, poll_frequency=0.02).until(lambda _: self.js(script))

    def until_open(self, case: str) -> None:
        self.until(f"document.querySelector('#detail .id')?.textContent.startsWith({json.dumps(case)})")

    def click(self, css: str) -> None:
        self.driver.find_element("css selector", css).click()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def text(self, css: str) -> str:
        return "\n".join(self.texts(css)[:1])

    def texts(self, css: str) -> list[str]:
        script = (
            "[...document.querySelectorAll(arguments[0])].map((node) => node.innerText.trim().toWellFormed())"
        )
        found: list[str] = self.js(script, css)
        return found

    def cases(self) -> list[str]:
        """The matrix's lines."""
        return self.texts("#matrix tr[data-case] .case .id")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no browser to look at the report's page with: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(hostile(), path)
    return path.as_uri()


@pytest.fixture
def browser(driver: Any, address: str) -> Iterator[Browser]:
    """No test may leave anything in the console."""
    yield Browser(driver, address)
    assert driver.get_log("browser") == []
    assert not driver.execute_script("return 'hacked' in window")


FAILED = f"#{LENGTH}/11.1"
WAIVED = f"#{FLAG}/7.2"
ALL_VIEWS = ["", FAILED, WAIVED, "#/requirements", "#/expectations", "#/pairs"]


def test_matrix_of_cases_and_targets(browser: Browser) -> None:
    browser.open()
    assert browser.cases() == [MAGIC, LENGTH, FLAG, ORDER, DEVICES, "test_of_a_worker_that_died"]
    assert browser.texts("#matrix thead .target") == ["5.2", "7.2", "10.0", "11.1"]
    groups = [name.split()[0] for name in browser.texts("#matrix .group .fold")]
    assert groups == ["header", "ram", "matrix", "none"]
    line = '#matrix tr[data-case="1"]'
    assert browser.js("document.querySelector(arguments[0]).innerText", line).count("pass") == 3
    assert browser.texts(f"{line} .cell .label") == ["pass", "pass", "pass", "fail"]
    assert browser.texts(".targets tbody tr:last-child td:not(.wide)") == ["2", "1", "0", "0", "2", "1", "6"]
    assert "1/2" in browser.texts("#matrix .many")


@pytest.mark.parametrize(
    ("act", "cases"),
    [
        ("search too-long", [LENGTH]),
        ("search LEG-HDR-001", [MAGIC]),
        ("search WAITS too", [LENGTH]),
        ("search nothing has this", []),
        ("chip fail", [LENGTH]),
        ("chip waived", [FLAG]),
        ("option header", [MAGIC]),
        ("option should", [LENGTH]),
        ("option source", [ORDER]),
        ("option full", [FLAG]),
        ("differs", [LENGTH]),
        ("count fail", [LENGTH]),
    ],
)
def test_filters(browser: Browser, act: str, cases: list[str]) -> None:
    browser.open()
    kind, _, value = act.partition(" ")
    match kind:
        case "search":
            browser.press("/", value)
            browser.until(f"document.querySelectorAll('#matrix tr[data-case]').length === {len(cases)}")
        case "chip":
            browser.click(f".chip.v-{value}")
        case "option":
            browser.click(f".selects option[value='{value}']")
        case "differs":
            browser.click(".option input")
        case "count":
            browser.click(f".targets tbody tr:last-child .count.v-{value}")
    assert browser.cases() == cases
    assert browser.js("document.getElementById('none').hidden") == bool(cases)
    browser.click(".selects > button")
    assert len(browser.cases()) == 6


def test_order_and_groups(browser: Browser) -> None:
    browser.open()
    browser.click(".selects option[value='requirement']")
    browser.click(".selects select:not(:has(option[value='must'])) option[value='']:last-child")
    sort = "#matrix thead .target:last-child"
    browser.click(f"{sort} .sort")
    assert browser.cases()[:2] == [DEVICES, "test_of_a_worker_that_died"]
    browser.click(f"{sort} .sort")
    assert browser.cases()[0] not in {DEVICES, "test_of_a_worker_that_died"}
    assert browser.js("document.querySelector(arguments[0]).ariaSort", sort) == "descending"
    browser.open()
    browser.do("document.querySelectorAll('.fold')[1].click()")
    assert browser.js("document.querySelector('#matrix tr[data-case=\"1\"]').offsetParent") is None


def test_a_cell_opens_what_is_known_of_its_row(browser: Browser) -> None:
    browser.open(FAILED)
    shown = browser.text("#detail")
    for part in (
        *("✗", "fail", NEW, "refused with a reason", "it waits", "LEG-DST-050", "Unknown ramblock"),
        *("!! too long [LEG-RAM-010]", f"{NEW}: Size too large", f"qmig conformance repeat report/{NEW}/x"),
    ):
        assert part in shown
    assert browser.js("document.querySelector('.files a').getAttribute('href')") == "./new/length/"
    assert browser.text(".line.bad") == "0x0000000b  !! too long [LEG-RAM-010]"
    assert browser.text("#matrix tr.open .case .title") == "what block-too-long is about"
    browser.open(f"#{MAGIC}")
    assert "the input breaks LEG-HDR-001" in browser.text("#detail")
    browser.open("#test_of_a_worker_that_died/11.1")
    assert "it died" in browser.text("#detail")


def test_texts_are_compared_with_another_build(browser: Browser) -> None:
    browser.open(FAILED)
    browser.click("#detail .select option[value='10.0']")
    gone = [f"- 0x00000000  machine {OLD}", "- RpShut value=1", f"- {OLD}: Size too large"]
    assert browser.texts(".line.gone") == gone
    new = [f"+ 0x00000000  machine {NEW}", f"+ {NEW}: Size too large"]
    assert browser.texts(".line.new") == new
    assert "0x0000000b  !! too long" in browser.text("pre.diff"), "a place that differs is no difference"
    browser.press("d")
    assert browser.texts(".line.new") == []
    browser.press("d")
    assert browser.texts(".line.new") == new


def test_the_command_is_copied(browser: Browser) -> None:
    browser.open(FAILED)
    browser.do("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    browser.do(
        "document.addEventListener('copy', () => { window.copied = document.activeElement.value; })",
    )
    browser.click(".command .copy")
    browser.until("document.getElementById('said').textContent === 'command copied'")
    assert browser.js("window.copied") == f"qmig conformance repeat report/{NEW}/x"


@pytest.mark.parametrize("hash", ALL_VIEWS)
def test_hostile_text_makes_no_element_and_no_link(browser: Browser, hash: str) -> None:
    browser.open(hash)
    assert browser.js("document.querySelectorAll('img, iframe, object, script').length") == 2
    others = "[...document.querySelectorAll('a')].filter((a) => !/^(file:|https:)/.test(a.href)).length"
    assert browser.js(others) == 0


def test_hostile_text_is_shown_as_it_is(browser: Browser) -> None:
    browser.open(WAIVED)
    assert browser.text("#detail").count("</script><script>window.hacked=1</script>") >= 8
    assert browser.js("document.querySelector('.files')") is None


def test_addresses(browser: Browser) -> None:
    browser.open(f"#{ORDER}@multifd/10.0")
    assert "multifd" in browser.text(".variant[aria-current]")
    assert "non-strict" in browser.text("#detail .badge")
    browser.do("location.hash = '#' + arguments[0]", f"{MAGIC}/5.2")
    browser.until_open(MAGIC)
    browser.driver.back()
    browser.until_open(ORDER)
    browser.open("#no.such.case/x")
    assert browser.text("#said") == "this report has no such row"
    assert browser.js("document.getElementById('detail').hidden")
    browser.open("#%E0%A4%A/%")
    assert len(browser.cases()) == 6


def test_keys(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open()
    browser.do("document.querySelector('#matrix a.cell').focus()")
    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ENTER)
    browser.until_open(LENGTH)
    browser.press("[")
    browser.until(f"document.querySelector('.detail-bar b').textContent === '{OLD}'")
    browser.press("k")
    browser.until_open(MAGIC)
    browser.press("n")
    browser.until_open(ORDER)
    browser.press(Keys.ESCAPE)
    assert browser.js("document.getElementById('detail').hidden")
    assert browser.js("document.activeElement.classList.contains('cell')")
    browser.press("?")
    assert browser.js("document.getElementById('help').open")
    browser.press(Keys.ESCAPE)
    assert not browser.js("document.getElementById('help').open")


def test_requirements(browser: Browser) -> None:
    browser.open("#/requirements/LEG-HDR-001")
    line = "#requirement-LEG-HDR-001"
    assert browser.js(f"document.querySelector('{line} details').open")
    assert MAGIC in browser.text(line)
    assert "its input breaks this statement" in browser.text(line)
    assert browser.texts(f"{line} .cell .label") == ["pass"] * 4
    assert browser.texts("#requirement-LEG-DST-050 .cell .label") == ["pass", "pass", "pass", "fail"]
    assert browser.text("#requirement-LEG-HDR-002 .number") == "none"
    browser.click("#view-requirements .option input")
    assert browser.js("document.getElementById('requirement-LEG-DST-050')") is None
    assert browser.js("document.getElementById('requirement-LEG-HDR-002') !== null")
    browser.do("location.hash = '#/requirements/LEG-DST-050'")
    browser.until("document.querySelector('#requirement-LEG-DST-050.open') !== null")


def test_expectations(browser: Browser) -> None:
    browser.open("#/expectations")
    assert browser.texts("#expectations tbody .state") == ["expired", "unmatched", "used"]
    assert browser.texts("#expectations .mini") == ["7.2 w"]
    links = "[...document.querySelectorAll('#expectations a:not(.mini)')].map((a) => a.getAttribute('href'))"
    assert browser.js(links) == ["#/requirements/LEG-DST-050", "https://example.org/1"]
    browser.click("#view-expectations input")
    browser.press("LEGACY.used")
    assert browser.texts("#expectations tbody tr:not([hidden]) .state") == ["used"]
    browser.click("#expectations .mini")
    browser.until_open(FLAG)
    assert "until 2027-01-01" in browser.text("#detail .box")


def test_pairs(browser: Browser) -> None:
    browser.open("#/pairs")
    assert browser.texts("#pairs tbody tr:not(.group) .case") == ["none / idle", "esp / idle"]
    assert browser.texts("#pairs .cell .label") == ["pass", "pass", "error", "error"]
    browser.click("#view-pairs .option input")
    assert browser.texts("#pairs tbody tr:not(.group) .case") == ["esp / idle"]
    browser.click("#pairs a.cell")
    browser.until_open(DEVICES)
    assert "Traceback: x" in browser.text("#detail")
    assert browser.js("document.getElementById('view-pairs').hidden") is False


@pytest.mark.parametrize("hash", ALL_VIEWS)
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone(browser: Browser, hash: str, dark: bool) -> None:
    browser.open(hash, width=390, dark=dark)
    for part in ("document.documentElement", "document.body", "document.getElementById('main')"):
        assert browser.js(f"{part}.scrollWidth") <= 390
    ground = browser.js("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 150) == dark


def test_colours_can_be_chosen(browser: Browser) -> None:
    browser.open()
    grounds = []
    for _ in range(3):
        grounds.append(browser.js("getComputedStyle(document.documentElement).backgroundColor"))
        browser.click("#theme")
    assert grounds[0] == grounds[1] != grounds[2]


def test_paper_has_all_rows_and_no_controls(browser: Browser) -> None:
    browser.open(FAILED, media="print", dark=True)
    assert browser.js("getComputedStyle(document.querySelector('.tools')).display") == "none"
    assert browser.js("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.js("getComputedStyle(document.getElementById('main')).overflow") == "visible"
    assert len(browser.driver.print_page()) > 10_000


@pytest.mark.parametrize("hash", ALL_VIEWS)
def test_everything_one_can_act_on_has_a_name(browser: Browser, hash: str) -> None:
    browser.open(hash)
    name = "(node.innerText || node.ariaLabel || node.title || node.closest('label')?.innerText || '').trim()"
    acts = f"[...document.querySelectorAll('a, button, input, select')].filter((node) => !{name})"
    assert browser.js(f"{acts}.map((node) => node.outerHTML)") == []


def test_a_large_matrix_is_drawn_whole(driver: Any, tmp_path: Path) -> None:
    write_html(large(), tmp_path / "report.html")
    browser = Browser(driver, (tmp_path / "report.html").as_uri())
    browser.open()
    browser.until("document.getElementById('matrix').dataset.drawn === '1500'")
    assert browser.js("document.querySelectorAll('#matrix a.cell').length") == 6000
    browser.press("/", "n1499")
    browser.until("document.querySelectorAll('#matrix tr[data-case]').length === 1")
    assert driver.get_log("browser") == []
