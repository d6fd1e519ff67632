# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching one file over HTTP: resumable, checked before it gets its name, never opened."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ..errors import CheckpointError
from .entries import readable_size

CHUNK = 1 << 20  # bytes
TIMEOUT = 30.0  # seconds without a byte
USER_AGENT = "comfyui-pose-transfer"

Progress = Callable[[str, int, int | None], None]
"""`progress(file name, bytes there, bytes in all or None)`, first before the first byte."""


class DownloadError(CheckpointError):
    """A file could not be fetched, or is not the one that was expected."""


def silent(name: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def partial_of(target: Path) -> Path:
    """Where a file grows until it is complete and checked."""
    return target.with_name(target.name + ".partial")


def fetch(
    url: str,
    target: Path,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress = silent,
) -> str:
    """Fetch one file; returns its sha256. `target` appears complete and checked, or not at all.

    An interrupted download goes on where it stopped if the server can do that and the file is sure
    to be the same: by the published sha256 in the end, else by the server's ETag.
    Raises DownloadError.
    """
    partial = partial_of(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if size is None or not partial.exists() or partial.stat().st_size != size:
            _complete(url, target, size, checked=sha256 is not None, progress=progress)
        digest = sha256_of(partial)
        _etag_of(target).unlink(missing_ok=True)
        if sha256 is None or digest == sha256:
            os.replace(partial, target)
            return digest
        partial.unlink()
    except OSError as error:
        raise DownloadError(f"{partial} cannot be written: {error}.") from error
    raise DownloadError(
        f"{target.name} from {url} has the sha256 {digest}, expected {sha256}. It was deleted. "
        "Try again; if it happens again, the file was changed where it comes from."
    )


def _etag_of(target: Path) -> Path:
    """Where the server's name for this very content is kept while the file is incomplete."""
    return target.with_name(target.name + ".partial.etag")


def _complete(url: str, target: Path, size: int | None, checked: bool, progress: Progress) -> None:
    """Make the partial file complete, from where it ends if that can be done."""
    partial, etag = partial_of(target), _etag_of(target)
    known = etag.read_text() if etag.exists() else None
    done = partial.stat().st_size if partial.exists() and (checked or known) else 0
    with _open(url, target, done, known) as response:
        done, total = _extent(response, url, target, done, size)
        free = shutil.disk_usage(target.parent).free
        if total is not None and total - done > free:
            raise DownloadError(
                f"{target.name} needs {readable_size(total - done)} more, but only "
                f"{readable_size(free)} are free in {target.parent}."
            )
        with partial.open("ab" if done else "wb") as file:
            current = response.headers.get("ETag", "")
            if current.startswith('"'):  # a weak one, W/"...", does not promise the same bytes
                etag.write_text(current)
            else:
                etag.unlink(missing_ok=True)
            done, why = _copy(response, file, target.name, done, total, progress)
    if why or total not in (None, done):
        there = readable_size(done) + (f" of {readable_size(total)}" if total else "")
        raise DownloadError(
            f"The download of {target.name} was cut off after {there}{why}. Run the same command "
            "again: it goes on from there where the server allows it."
        )


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to https only, so that nobody on the way can change the file."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != "https":
            raise DownloadError(f"{req.full_url} leads to {newurl}, which is not https: refused.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, target: Path, done: int, etag: str | None) -> http.client.HTTPResponse:
    """The answer to a request for what comes after the first `done` bytes."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url} is no web address: refused.")
    headers = {"User-Agent": USER_AGENT}
    if done:
        headers["Range"] = f"bytes={done}-"
        if etag:
            headers["If-Range"] = etag
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.build_opener(_HttpsRedirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing comes after these bytes: they are too many
            partial_of(target).unlink()
            return _open(url, target, 0, None)
        raise DownloadError(
            f"{_host(url)} answered {error.code} {error.reason}. {_by_hand(url, target)}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"No connection to {_host(url)} ({getattr(error, 'reason', error)}). "
            f"A download needs a network; nothing else here does. {_by_hand(url, target)}"
        ) from error


def _extent(
    response: http.client.HTTPResponse, url: str, target: Path, done: int, size: int | None
) -> tuple[int, int | None]:
    """Where the answer's bytes begin, and the size of the whole file; None if it comes chunked."""
    if response.headers.get_content_type() == "text/html":
        raise DownloadError(
            f"{_host(url)} sent a web page in place of {target.name}: it may ask for a "
            f"confirmation or an account. {_by_hand(url, target)}"
        )
    length = response.headers.get("Content-Length", "")
    start, total = 0, int(length) if length.isdigit() else size
    if response.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if span is None or int(span[1]) != done:
            raise DownloadError(
                f"{url} sent another part of the file than was asked for. Delete "
                f"{partial_of(target)} and try again."
            )
        start, total = done, int(span[2])
    if size is not None and total != size:
        raise DownloadError(
            f"{url} offers {total} bytes, expected {size}: not the file that is known as "
            f"{target.name}. Nothing was downloaded."
        )
    if total is None and not response.chunked:
        raise DownloadError(
            f"{_host(url)} does not say how large {target.name} is: a part could not be told from "
            f"the whole. {_by_hand(url, target)}"
        )
    return start, total


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    name: str,
    done: int,
    total: int | None,
    progress: Progress,
) -> tuple[int, str]:
    """Append the answer's bytes: the file's size then, and why there are no more, if known."""
    progress(name, done, total)
    while total is None or done < total:
        try:
            chunk = response.read(CHUNK if total is None else min(CHUNK, total - done))
        except (OSError, http.client.HTTPException) as error:
            return done, f" ({error})"
        if not chunk:
            break
        file.write(chunk)
        done += len(chunk)
        progress(name, done, total)
    return done, ""


def _host(url: str) -> str | None:
    return urlsplit(url).hostname


def _by_hand(url: str, target: Path) -> str:
    return f"By hand: open {url} in a browser and save the file as {target}"
