"""What a page is made of, for tests of any page."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """A page's tags, the addresses it names, the scopes of its heads of tables, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.heads: list[str | None] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        sources = {"src", "href", "srcset", "data", "xlink:href", "action", "poster"}
        self.loaded += [value for name, value in attributes if name in sources]
        styles = [value for name, value in attributes if name == "style"]
        self.loaded += [url for style in styles for url in re.findall(r"url\((.*?)\)", style)]
        if tag == "th":
            self.heads.append(dict(attributes).get("scope"))

    def handle_data(self, data):
        self.text += data
