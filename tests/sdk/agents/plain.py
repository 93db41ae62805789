"""Plain hooks: the calls of the context wait, and other requests wait with them."""

from kai import Agent, AgentError


class Base(Agent):
    """Not the agent: another class derives from it."""


class Plain(Base):
    order = []

    def on_message(self, msg):
        self.order.append(msg.payload)
        if msg.capability == "order":
            return self.order
        if msg.capability == "echo":
            return msg.payload
        try:
            return {"answer": self.send("other", "ask", msg.payload)}
        except AgentError as error:
            return {"code": error.code}
