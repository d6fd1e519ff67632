# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads from a real server on this machine that can do what servers do to a download."""

from __future__ import annotations

import email.message
import hashlib
import http.server
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pose_transfer.errors import CheckpointError
from pose_transfer.weights import transfer
from pose_transfer.weights.transfer import DownloadError, fetch, partial_of

CONTENT = bytes(range(256)) * 512
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ETAG = '"first"'


@dataclass
class Remote:
    """What the server offers and how it misbehaves; `ranges` is what it was asked for."""

    content: bytes = CONTENT
    etag: str | None = None
    knows_ranges: bool = True
    cut_after: int | None = None
    chunked: bool = False
    tells_length: bool = True
    content_type: str = "application/octet-stream"
    status: int = 200
    location: str = ""
    wrong_start: bool = False
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    remote: ClassVar[Remote]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        remote = self.remote
        asked = self.headers["Range"]
        remote.ranges.append(asked)
        if remote.status != 200:
            self.send_response(remote.status)
            self.send_header("Location", remote.location)
            self.end_headers()
            return
        start, status = 0, 200
        same = self.headers["If-Range"] in (None, remote.etag)
        if asked and remote.knows_ranges and same:
            start, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
            if start >= len(remote.content):
                self.send_error(416)
                return
        body = remote.content[start:]
        self.protocol_version = "HTTP/1.1"
        self.send_response(status)
        self.send_header("Connection", "close")
        self.send_header("Content-Type", remote.content_type)
        if remote.etag:
            self.send_header("ETag", remote.etag)
        if status == 206:
            first, last = start + remote.wrong_start, len(remote.content) - 1
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(remote.content)}")
        if remote.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif remote.tells_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body if remote.cut_after is None else body[: remote.cut_after]
        if remote.chunked:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent))
            if remote.cut_after is None:
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(sent)
        self.close_connection = True


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.remote = Remote(url=f"http://127.0.0.1:{server.server_port}/model.bin")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Handler.remote
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "model.bin"


def get(remote: Remote, target: Path, **known: Any) -> str:
    return fetch(remote.url, target, **{"size": len(CONTENT), "sha256": SHA256, **known})


def assert_only_the_file(target: Path) -> None:
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def cut_off(remote: Remote, target: Path, after: int = 1000, **known: Any) -> None:
    remote.cut_after = after
    with pytest.raises(DownloadError, match=r"cut off after .* the same command again"):
        get(remote, target, **known)
    remote.cut_after = None
    assert not target.exists()
    assert partial_of(target).stat().st_size == after


def test_a_file_is_fetched_with_its_size_known_before_the_first_byte(
    remote: Remote, target: Path
) -> None:
    seen: list[tuple[str, int, int | None]] = []
    assert get(remote, target, progress=lambda *now: seen.append(now)) == SHA256
    assert_only_the_file(target)
    assert seen[0] == ("model.bin", 0, len(CONTENT))
    assert seen[-1] == ("model.bin", len(CONTENT), len(CONTENT))


def test_a_cut_off_download_goes_on_where_it_stopped(remote: Remote, target: Path) -> None:
    cut_off(remote, target, 1000)
    seen: list[int] = []
    assert get(remote, target, progress=lambda name, done, total: seen.append(done)) == SHA256
    assert_only_the_file(target)
    assert remote.ranges == [None, "bytes=1000-"]
    assert seen[0] == 1000


def test_a_server_without_ranges_is_asked_for_all_again(remote: Remote, target: Path) -> None:
    cut_off(remote, target)
    remote.knows_ranges = False
    assert get(remote, target) == SHA256
    assert_only_the_file(target)


def test_a_complete_partial_file_is_not_fetched_again(remote: Remote, target: Path) -> None:
    target.parent.mkdir(parents=True)
    partial_of(target).write_bytes(CONTENT)
    assert get(remote, target) == SHA256
    assert_only_the_file(target)
    assert remote.ranges == []


def test_a_partial_file_that_is_too_long_is_fetched_anew(remote: Remote, target: Path) -> None:
    target.parent.mkdir(parents=True)
    partial_of(target).write_bytes(CONTENT + b"more")
    assert get(remote, target) == SHA256
    assert_only_the_file(target)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_wrong_sha256_is_refused_and_nothing_is_left(
    remote: Remote, target: Path, resumed: bool
) -> None:
    if resumed:
        cut_off(remote, target)
    remote.content = CONTENT[:-1] + b"!"
    with pytest.raises(DownloadError, match=rf"has the sha256 [0-9a-f]+, expected {SHA256}"):
        get(remote, target)
    assert list(target.parent.iterdir()) == []


def test_an_unverified_file_is_resumed_only_while_the_server_says_it_is_the_same(
    remote: Remote, target: Path
) -> None:
    unknown: dict[str, Any] = {"size": None, "sha256": None}
    remote.etag = ETAG
    cut_off(remote, target, **unknown)
    assert get(remote, target, **unknown) == SHA256
    assert_only_the_file(target)
    assert remote.ranges == [None, "bytes=1000-"]

    target.unlink()
    cut_off(remote, target, **unknown)
    remote.etag, remote.content = '"second"', CONTENT[::-1]
    assert get(remote, target, **unknown) == hashlib.sha256(CONTENT[::-1]).hexdigest()


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_an_unverified_file_without_a_strong_etag_is_fetched_anew(
    remote: Remote, target: Path, etag: str | None
) -> None:
    remote.etag = etag
    cut_off(remote, target, size=None, sha256=None)
    assert get(remote, target, size=None, sha256=None) == SHA256
    assert_only_the_file(target)
    assert remote.ranges == [None, None]


def test_another_size_than_published_is_refused_before_the_download(
    remote: Remote, target: Path
) -> None:
    remote.content = CONTENT + b"more"
    with pytest.raises(DownloadError, match=f"offers {len(CONTENT) + 4} bytes, expected"):
        get(remote, target)
    assert list(target.parent.iterdir()) == []


def test_another_part_than_asked_for_is_refused(remote: Remote, target: Path) -> None:
    cut_off(remote, target)
    remote.wrong_start = True
    with pytest.raises(DownloadError, match="another part of the file"):
        get(remote, target)
    assert not target.exists()


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_chunked_answer_is_taken_whole_or_not_at_all(
    remote: Remote, target: Path, size: int | None
) -> None:
    remote.chunked, remote.cut_after = True, 1000
    with pytest.raises(DownloadError, match="cut off after"):
        get(remote, target, size=size, sha256=None)
    assert not target.exists()
    remote.cut_after = None
    assert get(remote, target, size=size, sha256=None) == SHA256
    assert_only_the_file(target)


def test_a_file_of_unknown_length_is_refused(remote: Remote, target: Path) -> None:
    remote.tells_length = False
    with pytest.raises(DownloadError, match="does not say how large"):
        get(remote, target, size=None, sha256=None)
    assert get(remote, target) == SHA256


def test_a_web_page_is_no_model(remote: Remote, target: Path) -> None:
    remote.content_type = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match=r"a web page in place of model\.bin.*By hand: open"):
        get(remote, target)
    assert list(target.parent.iterdir()) == []


def test_an_error_of_the_server_is_shown(remote: Remote, target: Path) -> None:
    remote.status = 404
    with pytest.raises(DownloadError, match="answered 404 Not Found"):
        get(remote, target)


def test_a_redirect_to_http_is_refused(remote: Remote, target: Path) -> None:
    remote.status, remote.location = 302, remote.url
    with pytest.raises(DownloadError, match="which is not https: refused"):
        get(remote, target)
    assert list(target.parent.iterdir()) == []


def test_a_redirect_to_https_keeps_the_range() -> None:
    request = urllib.request.Request("https://a.example/x", headers={"Range": "bytes=7-"})
    moved = transfer._HttpsRedirects().redirect_request(
        request, None, 302, "Found", email.message.Message(), "https://b.example/y"
    )
    assert moved is not None
    assert (moved.full_url, moved.get_header("Range")) == ("https://b.example/y", "bytes=7-")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a.example/x", "model.bin"])
def test_only_web_addresses_are_opened(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="no web address"):
        fetch(url, tmp_path / "x")


def test_without_a_network_it_says_so_and_what_to_do(target: Path) -> None:
    with pytest.raises(CheckpointError, match=r"No connection to 127\.0\.0\.1 .*By hand: open"):
        fetch("http://127.0.0.1:1/x", target)
    assert list(target.parent.iterdir()) == []


def test_a_full_disk_is_seen_before_the_download(
    remote: Remote, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DownloadError, match=r"needs 131 kB more, but only 1 kB are free"):
        get(remote, target)


def test_a_folder_that_cannot_be_made_is_named(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="cannot be written"):
        get(remote, tmp_path / "file" / "model.bin")


def test_what_is_fetched_is_never_opened(remote: Remote, target: Path) -> None:
    """A pickle that would run code, and a zip, come through as plain bytes."""
    for content in (b"cos\nmkdir\n(S'was run'\ntR.", b"PK\x03\x04 no zip"):
        remote.content = content
        fetch(remote.url, target, len(content), hashlib.sha256(content).hexdigest())
        assert target.read_bytes() == content
        target.unlink()
