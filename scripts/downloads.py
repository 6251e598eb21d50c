"""
What pip is about to download, from its report, and how large it is.

    pip install --dry-run --quiet --report REPORT -r ... ; downloads.py REPORT > PINS

Writes one sentence to stderr and the packages with their exact versions to stdout. Runs on the
bare interpreter of a new virtual environment: the standard library alone.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

LARGEST = 4
"""How many packages are named with their size."""

CUDA = ("nvidia-", "cuda-", "triton")


def size_of(url: str) -> int | None:
    """Bytes of a file on disk or of what a server says of it; None where it does not say."""
    if url.startswith("file:"):
        return Path(unquote(urlsplit(url).path)).stat().st_size
    try:
        with urlopen(Request(url, method="HEAD"), timeout=20) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return None


def size_text(count: float) -> str:
    """Bytes for people: "182 MB", "2.5 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.3g} MB"


def pins(report: Mapping[str, Any]) -> list[str]:
    """Name and version of every package that pip would install."""
    told = [entry["metadata"] for entry in report["install"]]
    return [f"{one['name']}=={one['version']}" for one in told]


def sentence(
    report: Mapping[str, Any], size: Callable[[str], int | None] = size_of, threads: int = 16
) -> str:
    """Return how many packages there are, how large they are, and which make up most of it."""
    entries: Sequence[Mapping[str, Any]] = report["install"]
    if not entries:
        return "nothing to download"
    with ThreadPoolExecutor(threads) as pool:
        sizes = list(pool.map(lambda entry: size(entry["download_info"]["url"]), entries))
    known = sorted(
        ((bytes_, pin) for bytes_, pin in zip(sizes, pins(report)) if bytes_ is not None),
        reverse=True,
    )
    named = ", ".join(
        f"{pin.replace('==', ' ')} {size_text(bytes_)}" for bytes_, pin in known[:LARGEST]
    )
    missing = len(entries) - len(known)
    cuda = sum(bytes_ for bytes_, pin in known if pin.startswith(CUDA))
    return (
        f"{len(entries)} packages to download, {size_text(sum(b for b, _ in known))}"
        + (f" and {missing} of unknown size" if missing else "")
        + (f" (the largest: {named})" if named else "")
        + (f"; {size_text(cuda)} of it are libraries for NVIDIA cards" if cuda else "")
    )


if __name__ == "__main__":
    told = json.loads(Path(sys.argv[1]).read_text())
    print(f"setup: {sentence(told)}", file=sys.stderr)
    sys.stdout.writelines(f"{pin}\n" for pin in pins(told))
