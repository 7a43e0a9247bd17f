"""What the site does to the pages that a reader of the repository needs not: see mkdocs.yml."""

import os
import re

# A link's address in Markdown, with an anchor if it has one.
LINK = re.compile(r"\]\((\.\.?/[^)\s#]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```)", re.M | re.S)


def on_page_markdown(markdown, page, config, files):
    """Points links that leave docs/, such as those to source code, at the repository: the site has no such pages."""
    here = os.path.dirname(page.file.abs_src_path)
    docs = config["docs_dir"]
    root = os.path.dirname(docs)

    def point(match):
        target = os.path.normpath(os.path.join(here, match[1]))
        if target.startswith(docs + os.sep) or not os.path.exists(target):
            return match[0]  # on the site, or for mkdocs to complain of
        kind = "tree" if os.path.isdir(target) else "blob"
        return f"]({config['repo_url']}/{kind}/main/{os.path.relpath(target, root)}{match[2] or ''})"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(point, part) for part in parts)
