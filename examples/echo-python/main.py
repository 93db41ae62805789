"""Answers every message with its own payload."""

from kai import Agent


class Echo(Agent):
    def on_start(self):
        self.log.info("ready to echo")

    def on_message(self, msg):
        return msg.payload
