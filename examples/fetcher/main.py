"""Fetches what it is sent the URL of, with the standard library as it is: no proxy, no special client."""

import urllib.request

from kai import Agent

MOST_BYTES = 64 << 10


class Fetcher(Agent):
    def on_message(self, msg):
        url = msg.payload["url"]
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"not an http or https URL: {url}")
        with urllib.request.urlopen(url, timeout=10) as response:
            return {"status": response.status, "body": response.read(MOST_BYTES).decode("utf-8", "replace")}
