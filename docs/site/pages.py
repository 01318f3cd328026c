"""Pages of the site that lie outside docs/: README.md is its first page, and what pages link to,
such as reports, comes along. A link leads to the same file as in the repository."""

import posixpath
import re
import subprocess
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
FIRST_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def tracked() -> set[str]:
    """Paths of the repository's files, those that git doesn't know yet among them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in names.split("\0") if (ROOT / name).is_file()}


def site_path(path: str) -> str:
    """Where a file of the repository is on the site."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def repository_path(uri: str) -> str:
    """The inverse of `site_path`."""
    if uri == "index.md":
        return "README.md"
    return f"docs/{uri}" if (ROOT / "docs" / uri).is_file() else uri


def is_external(link: str) -> bool:
    """Whether a link leads out of the repository, or only to another part of its page."""
    return bool(re.match(r"[a-z]+:|#", link))


def target_of(link: str, page: str, files: set[str]) -> str | None:
    """The file that a relative link of a page leads to; of a folder, its page if it has one."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link.partition("#")[0]))
    for candidate in (path, f"{path}/README.md", f"{path}/report.md"):
        if candidate in files:
            return candidate
    return None


def linked_files(pages: list[str], files: set[str]) -> set[str]:
    """These pages and all files of the repository that can be reached from them by links."""
    reached, waiting = set(), list(pages)
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        if not page.endswith(".md"):
            continue
        text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
        links = [link for _, link in LINK.findall(text) if not is_external(link)]
        targets = [target_of(link, page, files) for link in links]
        waiting += [target for target in targets if target]
    return reached


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring the first pages, and what any page links to."""
    in_docs = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    for path in sorted(linked_files([*FIRST_PAGES, *in_docs], tracked())):
        if not path.startswith("docs/"):
            source = str(ROOT / path)
            files.append(File.generated(config, site_path(path), abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at where files are on the site; a folder without a page is only named. Guides
    come before reports in the answers of the search."""
    here = repository_path(page.file.src_uri)
    page.meta["search"] = {"boost": 2 if here.startswith(("docs/", "README")) else 0.5}
    known = {repository_path(file.src_uri) for file in files}
    start = posixpath.dirname(page.file.src_uri) or "."

    def rewritten(match: re.Match[str]) -> str:
        text, link = match.groups()
        if is_external(link):
            return match[0]
        target = target_of(link, here, known)
        if target is None and (ROOT / here).parent.joinpath(link).is_dir():
            return text
        if target is None:
            return match[0]  # MkDocs warns of it
        _, mark, anchor = link.partition("#")
        return f"[{text}]({posixpath.relpath(site_path(target), start)}{mark}{anchor})"

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(rewritten, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(rewritten, markdown[end:])])
