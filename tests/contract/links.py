"""Links and anchors between the pages of the built site. ``python -m tests.contract.links docs/_build``."""

import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

ANCHOR = re.compile(r'\b(?:id|name)="([^"]+)"')
LINK = re.compile(r'\b(?:href|src)="([^"]+)"')
FOREIGN = "_static"
"""Folder of the theme, whose templates are no pages."""


def find_broken(site: Path) -> list[str]:
    """Links of a site's pages to files or anchors that do not exist, with their page."""
    texts = {
        path.resolve(): path.read_text(encoding="utf-8")
        for path in sorted(site.rglob("*.html"))
        if FOREIGN not in path.relative_to(site).parts
    }
    anchors = {path: set(ANCHOR.findall(text)) for path, text in texts.items()}
    known: dict[Path, bool] = {}
    broken = []
    for path, text in texts.items():
        for link in dict.fromkeys(LINK.findall(text)):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = Path(os.path.normpath(f"{path.parent}/{unquote(parts.path)}")) if parts.path else path
            exists = known.setdefault(target, target.exists())
            anchor = unquote(parts.fragment)
            if not exists or (anchor and target in anchors and anchor not in anchors[target]):
                broken.append(f"{path.relative_to(site.resolve())}: {link}")
    return broken


def main() -> int:
    """Print the broken links of a site; 1 when there are any."""
    broken = find_broken(Path(sys.argv[1]))
    print("\n".join(broken) or "links: none is broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
