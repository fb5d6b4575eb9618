"""The report in a real browser: no request, no console error, plots drawn, light and dark."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from trustnlp import report
from trustnlp.results import Results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps"),
    *("--hide-scrollbars", "--enable-logging=stderr", "--v=0", "--host-resolver-rules=MAP * ~NOTFOUND"),
]


def browse(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Opens `page` in a fresh profile in which no name resolves; its net-log lies beside it."""
    own = [f"--user-data-dir={page.parent / 'profile'}", f"--log-net-log={page.parent / 'net.json'}"]
    command = [str(CHROMIUM), *QUIET, *own, *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def requests(page: Path) -> set[str]:
    """The addresses on the network that the page asked for (the browser's own requests have no origin)."""
    events = [event.get("params", {}) for event in json.loads((page.parent / "net.json").read_text())["events"]]
    asked = {event["url"] for event in events if event.get("initiator", "not an origin") != "not an origin"}
    return {url for url in asked if re.match("(http|ws)s?:", url)}


def screenshot(page: Path, *flags: str) -> np.ndarray:
    shot = page.parent / "shot.png"
    browse(page, f"--screenshot={shot}", "--window-size=1280,2000", *flags)
    return imread(shot)[..., :3]


@pytest.fixture
def page(tmp_path: Path, results: Results) -> Path:
    return report.write(tmp_path, results)


def test_the_page_is_complete_in_itself(page: Path) -> None:
    done = browse(page, "--dump-dom")
    assert console(done) == []
    assert requests(page) == set()
    assert done.stdout.count("<svg ") == 10
    assert done.stdout.count('role="img"') == 10
    assert "<h1>Support tickets</h1>" in done.stdout


def test_it_can_be_seen_in_light_and_in_dark(page: Path) -> None:
    light = screenshot(page, "--blink-settings=preferredColorScheme=1")
    dark = screenshot(page, "--blink-settings=preferredColorScheme=0")
    for shot, ground in ((light, 0xFB), (dark, 0x16)):
        assert shot.shape == (2000, 1280, 3)
        assert shot[5, 5, 0] == pytest.approx(ground / 255, abs=0.01)
        drawn = np.abs(shot - shot[5, 5]).max(axis=2) > 0.1
        assert 0.01 < drawn.mean() < 0.5
        assert drawn[:1000].any()
        assert drawn[1600:].any()  # the plots below the verdicts


def test_the_browser_reports_what_the_page_must_not_do(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://nowhere.example/x.png"><script>console.error("planted")</script>')
    done = browse(bad, "--dump-dom")
    assert any("planted" in line for line in console(done))
    assert any("nowhere.example" in url for url in requests(bad))


def test_the_page_forbids_what_slips_through(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    page.write_text(
        html.replace("</main>", '<img src="http://nowhere.example/x.png"><script>document.title=1</script></main>')
    )
    done = browse(page, "--dump-dom")
    assert not any("nowhere.example" in url for url in requests(page))
    assert len([line for line in console(done) if "Content Security Policy" in line]) >= 2
