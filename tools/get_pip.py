"""Installs pip into the environment of the running interpreter, without ensurepip and without pip.

For machines where nobody can install python3-venv. Looks where pip itself would: find-links folders, then
the index (PIP_INDEX_URL, pip.conf, PyPI), over the environment's proxies and certificates. The wheel's
digest is checked when the index gives one, and the wheel then installs itself.
"""

from __future__ import annotations

import configparser
import hashlib
import html.parser
import os
import re
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

#: A wheel for every platform, of a final release.
WHEEL = re.compile(r"pip-(?P<version>[0-9]+(?:\.[0-9]+)*)-py3-none-any\.whl$")


class Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        keys = dict(attrs)
        if tag == "a" and keys.get("href") and "data-yanked" not in keys and newest_for(keys):
            self.found.append(str(keys["href"]))


def newest_for(attributes: dict[str, str | None]) -> bool:
    """Whether a link's data-requires-python admits this interpreter (only ">=" is used by pip's wheels)."""
    wanted = re.search(r">=\s*3\.([0-9]+)", attributes.get("data-requires-python") or "")
    return wanted is None or sys.version_info >= (3, int(wanted[1]))


def setting(name: str) -> str:
    """One of pip's settings, from the environment or its configuration files (the last one wins)."""
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if value:
        return value
    home = Path.home()
    files = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf")]
    files += [home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    files += [Path(file) for file in [os.environ.get("PIP_CONFIG_FILE")] if file]
    parser = configparser.RawConfigParser()
    parser.read(files)
    return parser.get("global", name, fallback="") if parser.has_section("global") else ""


def context() -> ssl.SSLContext:
    bundle = setting("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return ssl.create_default_context(cafile=bundle or None)


def fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept": "text/html", "User-Agent": "qmig-bootstrap"})
    with urllib.request.urlopen(request, timeout=60, context=context()) as answer:
        data: bytes = answer.read()
    return data


def local_wheels() -> list[str]:
    folders = [Path(word) for word in setting("find-links").split()] + [Path("/usr/share/python-wheels")]
    return [path.as_uri() for folder in folders if folder.is_dir() for path in folder.glob("pip-*.whl")]


def index_wheels() -> list[str]:
    page = (setting("index-url") or "https://pypi.org/simple").rstrip("/") + "/pip/"
    links = Links()
    links.feed(fetch(page).decode("utf-8"))
    return [urllib.parse.urljoin(page, link) for link in links.found]


def newest(urls: list[str]) -> str | None:
    """The wheel of the highest release."""
    known = {url: WHEEL.search(urllib.parse.urlsplit(url).path) for url in urls}
    versions = {url: tuple(map(int, found["version"].split("."))) for url, found in known.items() if found}
    return max(versions, key=lambda url: versions[url], default=None)


def main() -> int:
    url = newest(local_wheels()) or newest(index_wheels())
    if url is None:
        print("get_pip: no wheel of pip in the index", file=sys.stderr)
        return 1
    data = fetch(url)
    parts = urllib.parse.urlsplit(url)
    digest = urllib.parse.parse_qs(parts.fragment).get("sha256")
    if digest and hashlib.sha256(data).hexdigest() != digest[0]:
        print(f"get_pip: sha256 of {url} differs from the index", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder, Path(parts.path).name)
        wheel.write_bytes(data)
        # A wheel of pip can be run in place, and so installs itself.
        command = [sys.executable, f"{wheel}/pip", "install", "-q", "--no-index", "--no-deps", str(wheel)]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as problem:
        print(f"get_pip: {problem}", file=sys.stderr)
        sys.exit(1)
